//! Loss over training steps.

use super::Curve;
use super::chart::{Anchor, Scale, Svg, colour, ticks};

const SIZE: (f64, f64) = (720.0, 300.0);
/// Room for the labels: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (46.0, 150.0, 14.0, 34.0);
/// Points that a line of this width can show.
const SHOWN: usize = 240;

/// One line a curve, validation as rings; names stand at the lines' ends. `first` is the colour of the first curve.
pub fn losses(curves: &[Curve], first: usize) -> String {
    let points =
        || curves.iter().flat_map(|c| c.training.iter().chain(&c.validation)).filter(|p| p.1.is_finite());
    let most = |f: fn(&(f64, f64)) -> f64| points().map(f).fold(f64::NEG_INFINITY, f64::max);
    let (steps, high) = (most(|p| p.0), most(|p| p.1));
    let low = -most(|p| -p.1);
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    let pad = 0.06 * (high - low).max(1e-3);
    let x = Scale { from: (0.0, steps), to: (MARGIN.0, SIZE.0 - MARGIN.1) };
    let y = Scale { from: ((low - pad).max(0.0), high + pad), to: (SIZE.1 - MARGIN.3, MARGIN.2) };
    axes(&mut svg, x, y);
    let mut labels: Vec<(f64, usize)> = Vec::new();
    for (i, curve) in curves.iter().enumerate() {
        let class = colour(first + i);
        svg.path(
            &format!("curve {class}"),
            thinned(&curve.training).into_iter().map(|(s, l)| (x.at(s), y.at(l))),
        );
        for &(step, loss) in &curve.validation {
            svg.dot(
                &format!("ring {class}"),
                (x.at(step), y.at(loss)),
                3.5,
                &format!("{}, step {step}: validation {loss:.4}", curve.name),
            );
        }
        if let Some(&(_, last)) = curve.training.last() {
            labels.push((y.at(last), i));
        }
    }
    for (place, i) in apart(labels) {
        let curve = &curves[i];
        let loss = curve.validation.last().or(curve.training.last()).map_or(f64::NAN, |p| p.1);
        let at = (SIZE.0 - MARGIN.1 + 12.0, place + 4.0);
        svg.text(
            &format!("name {}", colour(first + i)),
            at,
            Anchor::Start,
            &format!("{} {loss:.3}", curve.name),
        );
    }
    svg.finish("Loss over training steps")
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

/// Means over equal stretches, when there are more points than can be seen.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(points.len().div_ceil(SHOWN).max(1)).map(mean).collect()
}

/// Labels from top to bottom, moved so that none covers another.
fn apart(mut labels: Vec<(f64, usize)>) -> Vec<(f64, usize)> {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..labels.len() {
        labels[i].0 = labels[i].0.max(labels[i - 1].0 + 16.0);
    }
    labels
}
