//! The table of what models give away of random secrets in their training rows.

use super::chart::escape;
use super::data::Exposure;

/// Columns of the table.
pub const HEADER: [&str; 4] = ["model", "exposure, mean bits", "highest", "secrets preferred to all others"];

/// Returns the cells of a model.
pub fn cells(exposure: &Exposure) -> Vec<String> {
    let Exposure { model, candidates, bits } = exposure;
    let mean = bits.iter().sum::<f64>() / bits.len().max(1) as f64;
    let most = (*candidates as f64).log2();
    let extracted = bits.iter().filter(|&&b| b >= most).count();
    vec![
        model.clone(),
        format!("{mean:.1}"),
        format!("{:.1}", bits.iter().copied().fold(0.0, f64::max)),
        format!("{extracted} of {}", bits.len()),
    ]
}

/// Says how to read the table.
pub fn legend(exposures: &[Exposure]) -> String {
    let candidates = exposures.first().map_or(0, |exposure| exposure.candidates);
    format!(
        "Canaries: random secrets in private rows of this run. Exposure is log2 of {candidates} random values less log2 of the \
         secret's rank among them by its loss (arXiv 1802.08232): {:.1} bits on average where nothing was learned, {:.0} where \
         the model prefers the secret to all others.",
        // The mean of -log2 of a uniform share.
        std::f64::consts::LOG2_E,
        (candidates.max(1) as f64).log2()
    )
}

/// Renders the table.
pub fn table(exposures: &[Exposure]) -> String {
    let header: String = HEADER.iter().map(|name| format!("<th>{name}</th>")).collect();
    let row = |exposure: &Exposure| {
        let cells = cells(exposure);
        let rest: String = cells[1..].iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th>{}</th>{rest}</tr>", escape(&cells[0]))
    };
    let rows: String = exposures.iter().map(row).collect();
    format!("<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>")
}
