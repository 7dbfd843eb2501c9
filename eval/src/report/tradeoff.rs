//! The chart of what models gain on one set of problems against what they keep on another.

use super::chart::{Anchor, Scale, Svg, colour, percent, short, ticks};
use super::data::ProblemSet;
use crate::evaluate::ModelResult;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 130.0;
const BOTTOM: f64 = 46.0;

/// Draws one point per model, at its Pass@1 on `kept` (x) and on `gained` (y), with 95 % intervals. The line joins the
/// models that no other one beats on both (the Pareto front).
pub fn tradeoff(kept: &ProblemSet, gained: &ProblemSet) -> String {
    let models: Vec<(usize, &ModelResult, &ModelResult)> = kept
        .results
        .iter()
        .enumerate()
        .filter_map(|(i, x)| Some((i, x, gained.results.iter().find(|y| y.name == x.name)?)))
        .collect();
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let highest = |high: f64| (1.05 * high).clamp(0.05, 1.0);
    let x = Scale {
        from: (0.0, highest(models.iter().map(|(_, x, _)| x.high).fold(0.0, f64::max))),
        to: (LEFT, WIDTH - RIGHT),
    };
    let y = Scale {
        from: (0.0, highest(models.iter().map(|(.., y)| y.high).fold(0.0, f64::max))),
        to: (HEIGHT - BOTTOM, 12.0),
    };
    grid(&mut svg, x, y);
    let points: Vec<(f64, f64)> = models.iter().map(|(_, a, b)| (a.pass_at_1, b.pass_at_1)).collect();
    svg.path("trend", pareto_front(&points).into_iter().map(|(a, b)| (x.at(a), y.at(b))));
    for (i, a, b) in models {
        let (at_x, at_y) = (x.at(a.pass_at_1), y.at(b.pass_at_1));
        svg.line("whisker", (x.at(a.low), at_y), (x.at(a.high), at_y));
        svg.line("whisker", (at_x, y.at(b.low)), (at_x, y.at(b.high)));
        let hint = format!("{}: {} and {}", a.name, percent(a.pass_at_1), percent(b.pass_at_1));
        svg.dot(&colour(i), (at_x, at_y), 5.0, &hint);
        svg.text("value", (at_x + 8.0, at_y - 7.0), Anchor::Start, &short(&a.name, 22));
    }
    let name = |set: &ProblemSet| format!("Pass@1 on {} in percent", set.name);
    svg.text("label", ((x.to.0 + x.to.1) / 2.0, HEIGHT - 4.0), Anchor::Middle, &name(kept));
    svg.text("label", (4.0, 8.0), Anchor::Start, &name(gained));
    svg.finish(&format!("{} over {}, by model", name(gained), name(kept)))
}

fn grid(svg: &mut Svg, x: Scale, y: Scale) {
    let (values, decimals) = ticks(0.0, 100.0 * x.from.1, 6);
    for value in values {
        let at = x.at(value / 100.0);
        svg.line("grid", (at, y.to.0), (at, y.to.1));
        svg.text("tick", (at, HEIGHT - BOTTOM + 18.0), Anchor::Middle, &format!("{value:.decimals$}"));
    }
    let (values, decimals) = ticks(0.0, 100.0 * y.from.1, 6);
    for value in values {
        let at = y.at(value / 100.0);
        svg.line("grid", (x.to.0, at), (x.to.1, at));
        svg.text("tick", (x.to.0 - 8.0, at + 4.0), Anchor::End, &format!("{value:.decimals$}"));
    }
    svg.line("axis", (x.to.0, y.to.0), (x.to.1, y.to.0));
    svg.line("axis", (x.to.0, y.to.0), (x.to.0, y.to.1));
}

/// Returns the points that no other one beats in both coordinates, by ascending x.
pub fn pareto_front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let beats = |a: &(f64, f64), b: &(f64, f64)| a.0 >= b.0 && a.1 >= b.1 && a != b;
    let mut front: Vec<(f64, f64)> =
        points.iter().filter(|p| !points.iter().any(|other| beats(other, p))).copied().collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    front.dedup();
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_holds_what_nothing_beats_in_both() {
        let points = [(0.5, 0.1), (0.2, 0.4), (0.2, 0.3), (0.4, 0.1), (0.5, 0.1), (0.3, 0.3)];
        assert_eq!(pareto_front(&points), [(0.2, 0.4), (0.3, 0.3), (0.5, 0.1)]);
        assert_eq!(pareto_front(&[]), []);
    }
}
