//! The chart of Pass@1 over a quantity that was varied: the adapter's rank, the number of private rows.

use super::chart::{Anchor, Scale, Svg, colour, percent, ticks};
use super::data::{ProblemSet, Sweep};
use crate::evaluate::ModelResult;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Draws one point per model with its 95 % interval. The points are evenly spaced, since such quantities usually
/// double from one to the next.
pub fn sweep(sweep: &Sweep, set: &ProblemSet) -> String {
    let points: Vec<(&str, usize, &ModelResult)> = sweep
        .points
        .iter()
        .filter_map(|(value, model)| {
            let at = set.results.iter().position(|r| r.name == *model)?;
            Some((value.as_str(), at, &set.results[at]))
        })
        .collect();
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let high = points.iter().map(|(_, _, r)| r.high).fold(0.05, f64::max).min(1.0);
    let y = Scale { from: (0.0, high), to: (HEIGHT - BOTTOM, 12.0) };
    let x = Scale { from: (-0.5, points.len() as f64 - 0.5), to: (LEFT, WIDTH - RIGHT) };
    let (values, decimals) = ticks(0.0, 100.0 * high, 5);
    for value in values {
        svg.line("grid", (x.to.0, y.at(value / 100.0)), (x.to.1, y.at(value / 100.0)));
        let label = format!("{value:.decimals$}");
        svg.text("tick", (x.to.0 - 8.0, y.at(value / 100.0) + 4.0), Anchor::End, &label);
    }
    let places = points.iter().enumerate().map(|(i, (_, _, r))| (x.at(i as f64), y.at(r.pass_at_1)));
    svg.path("trend", places.clone());
    for ((place, (value, model, r)), middle) in places.clone().zip(&points).zip(places) {
        for end in [r.low, r.high] {
            svg.line("whisker", (place.0 - 4.0, y.at(end)), (place.0 + 4.0, y.at(end)));
        }
        svg.line("whisker", (place.0, y.at(r.low)), (place.0, y.at(r.high)));
        let hint =
            format!("{}: {} ({} to {})", r.name, percent(r.pass_at_1), percent(r.low), percent(r.high));
        svg.dot(&colour(*model), middle, 5.0, &hint);
        svg.text("value", (place.0 + 10.0, place.1 + 4.5), Anchor::Start, &percent(r.pass_at_1));
        svg.text("tick", (place.0, HEIGHT - BOTTOM + 18.0), Anchor::Middle, value);
    }
    svg.line("axis", (x.to.0, y.to.0), (x.to.1, y.to.0));
    svg.text("label", ((x.to.0 + x.to.1) / 2.0, HEIGHT - 4.0), Anchor::Middle, &sweep.name);
    svg.finish(&format!("Pass@1 in percent over {}, with 95 % intervals", sweep.name))
}
