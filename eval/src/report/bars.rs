//! Charts with one bar or point per row: Pass@1 with intervals, paired differences, verdicts, timings.

use super::chart::{Anchor, Scale, Svg, colour, duration, percent, short, ticks};
use super::data::{ProblemSet, StageTiming};
use crate::evaluate::ModelResult;
use crate::judge::Status;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 120.0;
const ROW: f64 = 34.0;
/// Maximum number of characters of a label.
const LABEL: usize = 20;

/// Draws one bar per model with its 95 % confidence interval.
pub fn pass_at_1(results: &[ModelResult]) -> String {
    let height = ROW * results.len() as f64 + 30.0;
    let mut svg = Svg::new(WIDTH, height);
    let high = results.iter().map(|r| r.high).fold(0.05, f64::max).min(1.0);
    let x = Scale { from: (0.0, high), to: (LEFT, WIDTH - RIGHT) };
    let (values, _) = ticks(0.0, 100.0 * high, 5);
    for value in values {
        svg.line("grid", (x.at(value / 100.0), 4.0), (x.at(value / 100.0), height - 26.0));
        svg.text("tick", (x.at(value / 100.0), height - 8.0), Anchor::Middle, &format!("{value}"));
    }
    for (i, r) in results.iter().enumerate() {
        let (top, middle) = (ROW * i as f64 + 8.0, ROW * i as f64 + 19.0);
        let hint =
            format!("{}: {} ({} to {})", r.name, percent(r.pass_at_1), percent(r.low), percent(r.high));
        svg.text("label", (LEFT - 12.0, middle + 4.5), Anchor::End, &short(&r.name, LABEL));
        svg.rect(&colour(i), (LEFT, top), (x.at(r.pass_at_1) - LEFT, 22.0), &hint);
        whisker(&mut svg, (x.at(r.low), x.at(r.high)), middle);
        svg.text(
            "value",
            (x.at(r.high.max(r.pass_at_1)) + 10.0, middle + 4.5),
            Anchor::Start,
            &percent(r.pass_at_1),
        );
    }
    svg.line("axis", (LEFT, 4.0), (LEFT, height - 26.0));
    svg.finish("Pass@1 in percent with 95 % intervals")
}

fn whisker(svg: &mut Svg, (low, high): (f64, f64), y: f64) {
    svg.line("whisker", (low, y), (high, y));
    for end in [low, high] {
        svg.line("whisker", (end, y - 4.0), (end, y + 4.0));
    }
}

/// Draws each paired difference as a point with its interval and a line at zero; the point is filled if the difference is
/// significant.
pub fn differences(set: &ProblemSet) -> String {
    let compared = &set.differences;
    let height = ROW * compared.len() as f64 + 30.0;
    let mut svg = Svg::new(WIDTH, height);
    let ends = || compared.iter().flat_map(|c| [c.difference.interval.low, c.difference.interval.high]);
    let (low, high) = (ends().fold(-0.02, f64::min), ends().fold(0.02, f64::max));
    let x = Scale { from: (low, high), to: (LEFT + 60.0, WIDTH - RIGHT) };
    let (values, _) = ticks(100.0 * low, 100.0 * high, 6);
    for value in values {
        let class = if value.abs() < 1e-9 { "zero" } else { "grid" };
        svg.line(class, (x.at(value / 100.0), 4.0), (x.at(value / 100.0), height - 26.0));
        svg.text("tick", (x.at(value / 100.0), height - 8.0), Anchor::Middle, &signed(value, 0));
    }
    for (i, (c, verdict)) in compared.iter().zip(set.verdicts()).enumerate() {
        let y = ROW * i as f64 + 19.0;
        let interval = &c.difference.interval;
        let class = if verdict.is_significant() { "dot" } else { "dot open" };
        svg.text(
            "label",
            (LEFT + 48.0, y + 4.5),
            Anchor::End,
            &format!("{} − {}", short(&c.to, LABEL / 2 + 2), short(&c.from, LABEL / 2)),
        );
        whisker(&mut svg, (x.at(interval.low), x.at(interval.high)), y);
        svg.dot(
            class,
            (x.at(interval.value), y),
            5.0,
            &format!("{} points", signed(100.0 * interval.value, 1)),
        );
        svg.text("value", (WIDTH - RIGHT + 14.0, y + 4.5), Anchor::Start, &signed(100.0 * interval.value, 1));
    }
    svg.finish("Paired differences of Pass@1 in points with 95 % intervals")
}

/// Formats a number with its sign: `+3.2` or `−3.2`.
pub fn signed(value: f64, decimals: usize) -> String {
    let sign = if value > 0.0 {
        "+"
    } else if value < 0.0 {
        "−"
    } else {
        ""
    };
    format!("{sign}{:.decimals$}", value.abs())
}

/// Draws the verdicts of each model's samples as shares of one bar.
pub fn statuses(results: &[ModelResult]) -> String {
    let all = [
        Status::Ok,
        Status::AssertionError,
        Status::SyntaxError,
        Status::ReferenceError,
        Status::Exception,
        Status::Timeout,
        Status::NeedsNode,
    ];
    let height = ROW * results.len() as f64 + 34.0;
    let mut svg = Svg::new(WIDTH, height);
    let occurs = |status: &Status| results.iter().any(|r| r.statuses.get(status).is_some_and(|n| *n > 0));
    let entries: Vec<(usize, &str)> = all
        .iter()
        .enumerate()
        .filter(|(_, status)| occurs(status))
        .map(|(s, status)| (s, status_name(*status)))
        .collect();
    let width = |label: &str| 32.0 + 6.3 * label.len() as f64;
    // Above the bars, or as far to the left as all entries need.
    let mut legend = LEFT.min(WIDTH - entries.iter().map(|(_, label)| width(label)).sum::<f64>());
    for (s, label) in entries {
        svg.rect(&format!("s{s}"), (legend, 6.0), (11.0, 11.0), "");
        svg.text("tick", (legend + 16.0, 16.0), Anchor::Start, label);
        legend += width(label);
    }
    for (i, r) in results.iter().enumerate() {
        let top = ROW * i as f64 + 32.0;
        svg.text("label", (LEFT - 12.0, top + 15.5), Anchor::End, &short(&r.name, LABEL));
        let mut left = LEFT;
        for (s, status) in all.iter().enumerate() {
            let share = r.statuses.get(status).copied().unwrap_or(0) as f64 / r.samples.max(1) as f64;
            let width = share * (WIDTH - LEFT);
            let hint = format!("{}: {} {}", r.name, status_name(*status), percent(share));
            svg.rect(&format!("s{s}"), (left, top), (width - 1.0, 22.0), &hint);
            left += width;
        }
    }
    svg.finish("Verdicts of all samples, by model")
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::AssertionError => "AssertionError",
        Status::SyntaxError => "SyntaxError",
        Status::ReferenceError => "ReferenceError",
        Status::Exception => "Exception",
        Status::Timeout => "Timeout",
        Status::NeedsNode => "NeedsNode",
    }
}

/// Draws one bar per stage.
pub fn timings(timings: &[StageTiming]) -> String {
    const ROW: f64 = 26.0;
    let mut svg = Svg::new(WIDTH, ROW * timings.len() as f64 + 8.0);
    let longest = timings.iter().map(|t| t.seconds).fold(0.0, f64::max);
    let x = Scale { from: (0.0, longest), to: (LEFT + 60.0, WIDTH - RIGHT) };
    for (i, t) in timings.iter().enumerate() {
        let top = ROW * i as f64 + 6.0;
        svg.text("label", (LEFT + 48.0, top + 12.0), Anchor::End, &short(&t.name, LABEL + 6));
        svg.rect("time", (x.to.0, top), ((x.at(t.seconds) - x.to.0).max(1.5), 15.0), &duration(t.seconds));
        svg.text("value", (x.at(t.seconds) + 10.0, top + 12.0), Anchor::Start, &duration(t.seconds));
    }
    svg.finish("Wall time of each stage")
}
