//! The chart of the loss over training steps.

use super::chart::{Anchor, Scale, Svg, colour, ticks};
use super::data::LossCurve;

const SIZE: (f64, f64) = (720.0, 300.0);
/// Margins for the labels: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (46.0, 150.0, 14.0, 34.0);
/// Maximum number of points that a line of this width can show.
const MAX_POINTS: usize = 240;

/// Draws one line per curve with its name at the end, and validation losses as rings. `first` is the index of the first
/// curve's colour.
pub fn losses(curves: &[LossCurve], first: usize) -> String {
    let points =
        || curves.iter().flat_map(|c| c.training.iter().chain(&c.validation)).filter(|p| p.1.is_finite());
    let max = |f: fn(&(f64, f64)) -> f64| points().map(f).fold(f64::NEG_INFINITY, f64::max);
    let (steps, high) = (max(|p| p.0), highest_that_matters(curves));
    let low = -max(|p| -p.1);
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    let pad = 0.06 * (high - low).max(1e-3);
    let x = Scale { from: (0.0, steps), to: (MARGIN.0, SIZE.0 - MARGIN.1) };
    let y = Scale { from: ((low - pad).max(0.0), high + pad), to: (SIZE.1 - MARGIN.3, MARGIN.2) };
    let height = |loss: f64| y.at(loss).max(MARGIN.2);
    axes(&mut svg, x, y);
    let mut labels: Vec<(f64, usize, f64)> = Vec::new();
    for (i, curve) in curves.iter().enumerate() {
        let class = colour(first + i);
        let line = thinned(&curve.training);
        if let Some(&(_, last)) = line.last() {
            labels.push((height(last), i, last));
        }
        svg.path(&format!("curve {class}"), line.into_iter().map(|(s, l)| (x.at(s), height(l))));
        for &(step, loss) in &curve.validation {
            svg.dot(
                &format!("ring {class}"),
                (x.at(step), height(loss)),
                3.5,
                &format!("{}, step {step}: validation {loss:.4}", curve.name),
            );
        }
    }
    for (label_y, i, last) in spread(labels) {
        let curve = &curves[i];
        let loss = curve.validation.last().map_or(last, |p| p.1);
        svg.text(
            &format!("name {}", colour(first + i)),
            (SIZE.0 - MARGIN.1 + 12.0, label_y + 4.0),
            Anchor::Start,
            &format!("{} {loss:.3}", curve.name),
        );
    }
    svg.finish("Loss over training steps")
}

/// Returns the loss up to which the axis reaches: 95 of 100 points of every curve lie below it, so that a first spike does
/// not press the rest to the bottom.
fn highest_that_matters(curves: &[LossCurve]) -> f64 {
    let of_curve = |points: &[(f64, f64)]| {
        let mut losses: Vec<f64> = points.iter().map(|p| p.1).filter(|loss| loss.is_finite()).collect();
        losses.sort_by(f64::total_cmp);
        losses.get((losses.len() * 95 / 100).min(losses.len().saturating_sub(1))).copied()
    };
    let lines = curves.iter().flat_map(|c| [thinned(&c.training), c.validation.clone()]);
    lines.filter_map(|line| of_curve(&line)).fold(f64::NEG_INFINITY, f64::max)
}

fn axes(svg: &mut Svg, x: Scale, y: Scale) {
    let (values, decimals) = ticks(y.from.0, y.from.1, 5);
    for value in values {
        svg.line("grid", (x.to.0, y.at(value)), (x.to.1, y.at(value)));
        svg.text("tick", (x.to.0 - 8.0, y.at(value) + 4.0), Anchor::End, &format!("{value:.decimals$}"));
    }
    let (values, decimals) = ticks(x.from.0, x.from.1, 6);
    for value in values {
        svg.text("tick", (x.at(value), y.to.0 + 18.0), Anchor::Middle, &format!("{value:.decimals$}"));
    }
    svg.line("axis", (x.to.0, y.to.0), (x.to.1, y.to.0));
    svg.text("tick", (x.to.1 + 24.0, y.to.0 + 18.0), Anchor::Start, "step");
}

/// Averages over equal intervals if there are more points than [`MAX_POINTS`].
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(points.len().div_ceil(MAX_POINTS).max(1)).map(mean).collect()
}

/// Sorts labels from top to bottom by their height, the first number, and moves them so that none overlaps another.
fn spread(mut labels: Vec<(f64, usize, f64)>) -> Vec<(f64, usize, f64)> {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..labels.len() {
        labels[i].0 = labels[i].0.max(labels[i - 1].0 + 16.0);
    }
    labels
}
