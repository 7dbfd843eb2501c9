//! The matrix of solved problems by model.

use super::chart::{Anchor, Svg, colour, short};
use super::failures;
use crate::evaluate::ModelResult;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
/// Maximum number of problems per line; more are spread over equal lines.
const COLUMNS: usize = 80;
const CELL: f64 = 16.0;

/// Draws a row per model and a column per problem, filled by the share of samples that pass. Problems are sorted by
/// the sum of these shares over the models, so that gains and losses are visible at a glance. A cell links to the
/// failed samples.
pub fn matrix(set: usize, results: &[ModelResult]) -> String {
    let Some(first) = results.first() else { return String::new() };
    let share =
        |r: &ModelResult, i: usize| r.per_problem[i].correct as f64 / r.per_problem[i].samples.max(1) as f64;
    let total = |i: &usize| results.iter().map(|r| share(r, *i)).sum::<f64>();
    let mut order: Vec<usize> = (0..first.per_problem.len()).collect();
    order.sort_by(|a, b| total(b).total_cmp(&total(a)).then(a.cmp(b)));
    let columns = order.len().div_ceil(order.len().div_ceil(COLUMNS).max(1)).max(1);
    let width = ((WIDTH - LEFT) / columns as f64).min(CELL);
    let band = (CELL + 2.0) * results.len() as f64 + 12.0;
    let mut svg = Svg::new(WIDTH, band * order.len().div_ceil(columns) as f64);
    for (line, problems) in order.chunks(columns).enumerate() {
        for (m, result) in results.iter().enumerate() {
            let top = line as f64 * band + m as f64 * (CELL + 2.0) + 4.0;
            svg.text("label", (LEFT - 12.0, top + 12.5), Anchor::End, &short(&result.name, 20));
            for (column, &i) in problems.iter().enumerate() {
                let p = &result.per_problem[i];
                let hint = format!("{}: {} of {}, {}", p.name, p.correct, p.samples, result.name);
                let gap = (width * 0.12).min(1.5);
                svg.cell(
                    &colour(m),
                    (LEFT + column as f64 * width, top),
                    (width - gap, CELL),
                    share(result, i),
                    &hint,
                    failures::element_id(set, i, results),
                );
            }
        }
    }
    svg.finish("Share of passing samples by problem and model")
}
