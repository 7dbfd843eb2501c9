//! The table of private repositories: the models' results on rows that none has trained on.

use super::chart::escape;
use super::data::RepositoryResult;
use crate::held_out::HeldOutResult;
use crate::statistics::{ConfidenceInterval, PairedDifference, verdicts};

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
    library declares. Verbatim tokens: the longest run of tokens shared with the training data. Intervals are 95 %, by the same rule as Pass@1's, over \
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

/// Returns, for each repository, one line per paired difference, with the reason if it is not significant among all
/// differences of the repositories.
pub fn differences(repositories: &[RepositoryResult]) -> Vec<Vec<String>> {
    let compared: Vec<Vec<(&str, PairedDifference)>> = repositories.iter().map(compared).collect();
    let mut verdicts = verdicts(compared.iter().flatten().map(|(_, difference)| difference)).into_iter();
    let mut line = |repository: &RepositoryResult, what: &str, d: &PairedDifference| {
        let [value, low, high] = [d.interval.value, d.interval.low, d.interval.high].map(|v| 100.0 * v);
        let noise = verdicts.next().and_then(|verdict| verdict.noise);
        let noise = noise.map_or(String::new(), |noise| format!(": {noise}"));
        let model = |reading: Option<&HeldOutResult>| reading.map_or(String::new(), |r| r.model.clone());
        let (first, last) = (model(repository.readings.first()), model(repository.readings.last()));
        format!(
            "{}, {what}: {last} − {first} {value:+.1} points [{low:+.1}, {high:+.1}]{noise}",
            repository.repository
        )
    };
    let lines = repositories.iter().zip(&compared);
    lines.map(|(r, compared)| compared.iter().map(|(what, d)| line(r, what, d)).collect()).collect()
}

/// Returns a repository's paired differences under the names of what is compared.
fn compared(repository: &RepositoryResult) -> Vec<(&'static str, PairedDifference)> {
    let named = [("names found", repository.names), ("parses", repository.valid)];
    named.into_iter().filter_map(|(what, difference)| Some((what, difference?))).collect()
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
    let lines = differences(repositories).into_iter().flatten();
    let lines: String = lines.map(|line| format!("<li>{}</li>", escape(&line))).collect();
    format!("<ul>{lines}</ul>")
}
