//! The table of infilling: the models' results on holes that none has trained on.

use super::chart::escape;
use crate::infilling::InfillResult;
use crate::statistics::{ConfidenceInterval, PairedDifference, verdicts};

/// The table's columns.
pub const HEADER: [&str; 5] =
    ["model", "exact match %", "edit similarity %", "rows × samples", "rows short of room"];

/// The explanation of the columns.
pub const LEGEND: &str = "Holes in source files, filled from the text before and after them. Exact match: samples that are the text that \
    was there. Edit similarity: 1 − the edit distance from it in characters, divided by the longer length. White space at the \
    ends does not count. Intervals are 95 %, by the same rule as Pass@1's, over rows. None of these figures says that other \
    text is wrong: it is not executed.";

/// Describes the sampling of a result and the rows that it is of.
fn protocol(r: &InfillResult) -> String {
    let p = &r.protocol;
    let rows = p.rows_hash.get(..16).unwrap_or(&p.rows_hash);
    format!(
        "{} samples a row at temperature {} and top-p {}, up to {} tokens, seed {}; rows {rows}",
        p.samples, p.temperature, p.top_p, p.max_tokens, p.seed
    )
}

/// Returns the protocols of results, each once.
pub fn protocols(results: &[InfillResult]) -> Vec<String> {
    let mut all: Vec<String> = results.iter().map(protocol).collect();
    all.dedup();
    all
}

/// Returns the cells of one model.
pub fn cells(r: &InfillResult) -> Vec<String> {
    vec![
        r.model.clone(),
        interval(r.exact_match),
        interval(r.edit_similarity),
        format!("{} × {}", r.protocol.rows, r.protocol.samples),
        r.limited.to_string(),
    ]
}

fn interval(i: ConfidenceInterval) -> String {
    let [value, low, high] = [i.value, i.low, i.high].map(|share| 100.0 * share);
    format!("{value:.1} [{low:.1}, {high:.1}]")
}

/// A difference of a model from the first one under the same protocol.
pub struct InfillDifference<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub metric: &'static str,
    pub difference: PairedDifference,
}

/// Returns the differences of each model from the first one under its protocol.
pub fn differences(results: &[InfillResult]) -> Vec<InfillDifference<'_>> {
    let mut all = Vec::new();
    for (i, to) in results.iter().enumerate() {
        let Some(from) = results[..i].iter().find(|from| from.protocol == to.protocol) else { continue };
        let pairs = to.difference_from(from).into_iter().flatten().zip(["exact match", "edit similarity"]);
        all.extend(pairs.map(|(difference, metric)| InfillDifference {
            from: &from.model,
            to: &to.model,
            metric,
            difference,
        }));
    }
    all
}

/// Returns a line for each difference, with the reason if it is not significant among all of them.
pub fn difference_lines(results: &[InfillResult]) -> Vec<String> {
    let differences = differences(results);
    let verdicts = verdicts(differences.iter().map(|d| &d.difference));
    let line = |(d, verdict): (&InfillDifference, crate::statistics::Verdict)| {
        let i = d.difference.interval;
        let [value, low, high] = [i.value, i.low, i.high].map(|v| 100.0 * v);
        let noise = verdict.noise.map_or(String::new(), |noise| format!(": {noise}"));
        format!("{}: {} − {} {value:+.1} points [{low:+.1}, {high:+.1}]{noise}", d.metric, d.to, d.from)
    };
    differences.iter().zip(verdicts).map(line).collect()
}

/// Renders the table and the differences in HTML.
pub fn html(results: &[InfillResult]) -> String {
    let cell = |tag: &str, text: &str| format!("<{tag}>{}</{tag}>", escape(text));
    let header: String = HEADER.iter().map(|name| cell("th", name)).collect();
    let row = |r: &InfillResult| {
        let cells = cells(r);
        let values: String = cells[1..].iter().map(|text| cell("td", text)).collect();
        format!("<tr>{}{values}</tr>", cell("th", &cells[0]))
    };
    let rows: String = results.iter().map(row).collect();
    let lines: String = difference_lines(results).iter().map(|line| cell("li", line)).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"fine\">{}</p><ul>{lines}</ul><pre>{}</pre>",
        escape(LEGEND),
        escape(&protocols(results).join("\n"))
    )
}
