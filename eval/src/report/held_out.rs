//! The table of private repositories: the models' results on rows that none has trained on.

use super::chart::escape;
use super::data::RepositoryResult;
use crate::statistics::{ConfidenceInterval, PairedDifference};

/// The table's columns.
pub const HEADER: [&str; 8] = [
    "repository",
    "model",
    "perplexity",
    "names found %",
    "parses %",
    "invents methods %",
    "verbatim tokens",
    "rows: trained / held out",
];

/// The explanation of the columns.
pub const LEGEND: &str = "<p class=\"fine\">Names found: the share of the exported names in the reference code, without those in the \
    instruction, that the answers use. Invents methods: answers that call a method that neither the repository nor the language's \
    library declares. Verbatim tokens: the longest run of tokens shared with the training data. Intervals are 95 %, by bootstrap over \
    rows. None of these figures says that the code is correct: it is not executed.</p>";

/// Returns the table's cells, one row per model.
pub fn cells(repository: &RepositoryResult) -> Vec<Vec<String>> {
    let rows = repository.readings.iter().enumerate().map(|(i, r)| {
        let first = |text: String| if i == 0 { text } else { String::new() };
        let (shown, of) = repository.shown;
        vec![
            first(repository.repository.clone()),
            r.model.clone(),
            r.perplexity.map_or("–".into(), |p| format!("{p:.2}")),
            r.names.map_or("–".into(), interval),
            interval(r.valid),
            interval(r.invented),
            r.verbatim.as_ref().map_or("–".into(), |(n, _)| n.to_string()),
            first(format!("{} (show {shown} of {of} names) / {}", repository.trained, r.rows)),
        ]
    });
    rows.collect()
}

fn interval(i: ConfidenceInterval) -> String {
    let [value, low, high] = [i.value, i.low, i.high].map(|share| 100.0 * share);
    format!("{value:.1} [{low:.1}, {high:.1}]")
}

/// Returns one line per paired difference of a repository, with the reason if it is not significant.
pub fn differences(repository: &RepositoryResult) -> Vec<String> {
    let (Some(first), Some(last)) = (repository.readings.first(), repository.readings.last()) else {
        return Vec::new();
    };
    let line = |what: &str, difference: &Option<PairedDifference>| {
        let d = difference.as_ref()?;
        let [value, low, high] = [d.interval.value, d.interval.low, d.interval.high].map(|v| 100.0 * v);
        let noise = d.why_not_significant().map_or(String::new(), |noise| format!(": {noise}"));
        Some(format!(
            "{}, {what}: {} − {} {value:+.1} points [{low:+.1}, {high:+.1}]{noise}",
            repository.repository, last.model, first.model
        ))
    };
    [line("names found", &repository.names), line("parses", &repository.valid)]
        .into_iter()
        .flatten()
        .collect()
}

/// Renders the table in HTML.
pub fn table(repositories: &[RepositoryResult]) -> String {
    let header: String = HEADER.iter().map(|name| format!("<th>{name}</th>")).collect();
    let row = |cells: Vec<String>| {
        let cells: String = cells
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                if i < 2 {
                    format!("<th>{}</th>", escape(cell))
                } else {
                    format!("<td>{}</td>", escape(cell))
                }
            })
            .collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = repositories.iter().flat_map(cells).map(row).collect();
    format!("<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>")
}

/// Renders the differences in HTML.
pub fn noise(repositories: &[RepositoryResult]) -> String {
    let lines = repositories.iter().flat_map(differences);
    let lines: String = lines.map(|line| format!("<li>{}</li>", escape(&line))).collect();
    format!("<ul>{lines}</ul>")
}
