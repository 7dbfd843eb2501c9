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
    let mut labels: Vec<Label> = Vec::new();
    for (i, a, b) in models {
        let (at_x, at_y) = (x.at(a.pass_at_1), y.at(b.pass_at_1));
        svg.line("whisker", (x.at(a.low), at_y), (x.at(a.high), at_y));
        svg.line("whisker", (at_x, y.at(b.low)), (at_x, y.at(b.high)));
        let hint = format!("{}: {} and {}", a.name, percent(a.pass_at_1), percent(b.pass_at_1));
        svg.dot(&colour(i), (at_x, at_y), 5.0, &hint);
        let name = short(&a.name, 22);
        let label = Label::beside((at_x, at_y), &name, &labels);
        svg.text("value", label.at, label.anchor, &name);
        labels.push(label);
    }
    let name = |set: &ProblemSet| format!("Pass@1 on {} in percent", set.name);
    svg.text("label", ((x.to.0 + x.to.1) / 2.0, HEIGHT - 4.0), Anchor::Middle, &name(kept));
    svg.text("label", (4.0, 8.0), Anchor::Start, &name(gained));
    svg.finish(&format!("{} over {}, by model", name(gained), name(kept)))
}

/// A label that is placed.
struct Label {
    /// Its baseline, at the end that `anchor` names.
    at: (f64, f64),
    anchor: Anchor,
    width: f64,
}

impl Label {
    /// Height of a line, and width of a character, of bold text.
    const HEIGHT: f64 = 15.0;
    const CHARACTER: f64 = 7.2;

    /// Places `text` beside a point, above or below, right or left: where it first meets none of `others`.
    fn beside((x, y): (f64, f64), text: &str, others: &[Label]) -> Label {
        let width = text.chars().count() as f64 * Label::CHARACTER;
        let label = |(right, dy): (bool, f64)| match right {
            true => Label { at: (x + 8.0, y + dy), anchor: Anchor::Start, width },
            false => Label { at: (x - 8.0, y + dy), anchor: Anchor::End, width },
        };
        let places = [(true, -7.0), (true, 17.0), (false, -7.0), (false, 17.0)];
        let free = |place: &(bool, f64)| {
            let label = label(*place);
            label.left() > LEFT && !others.iter().any(|other| label.meets(other))
        };
        label(places.into_iter().find(free).unwrap_or(places[0]))
    }

    fn left(&self) -> f64 {
        match self.anchor {
            Anchor::Start => self.at.0,
            Anchor::Middle => self.at.0 - self.width / 2.0,
            Anchor::End => self.at.0 - self.width,
        }
    }

    fn meets(&self, other: &Label) -> bool {
        let apart = self.left() > other.left() + other.width || other.left() > self.left() + self.width;
        !apart && (self.at.1 - other.at.1).abs() < Label::HEIGHT
    }
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
    fn labels_of_near_points_stand_apart() {
        let points = [(300.0, 100.0), (303.0, 102.0), (298.0, 99.0), (301.0, 101.0)];
        let mut labels: Vec<Label> = Vec::new();
        for at in points {
            let label = Label::beside(at, "a long name", &labels);
            assert!(labels.iter().all(|other| !label.meets(other)));
            labels.push(label);
        }
        // At the left edge there is room on the right alone.
        assert!(matches!(Label::beside((LEFT + 10.0, 50.0), "a long name", &labels).anchor, Anchor::Start));
    }

    #[test]
    fn the_front_holds_what_nothing_beats_in_both() {
        let points = [(0.5, 0.1), (0.2, 0.4), (0.2, 0.3), (0.4, 0.1), (0.5, 0.1), (0.3, 0.3)];
        assert_eq!(pareto_front(&points), [(0.2, 0.4), (0.3, 0.3), (0.5, 0.1)]);
        assert_eq!(pareto_front(&[]), []);
    }
}
