//! Costs of a run, and the tokens that the same work would have sent to a hosted model.

use super::chart::{count, duration, size};
use super::data::Report;

/// Returns the costs as name and value; nothing if no model was trained.
pub fn costs(report: &Report) -> Vec<(&'static str, String)> {
    let trained: u64 = report.models.iter().filter_map(|row| row.tokens).sum();
    if trained == 0 {
        return Vec::new();
    }
    let seconds: f64 = report.timings.iter().map(|stage| stage.seconds).sum();
    let peak = report.models.iter().filter_map(|row| row.peak_bytes).max();
    let hosted = &report.hosted;
    let mut rows = vec![
        ("time of all stages", duration(seconds)),
        ("peak device memory of training", peak.map_or("–".into(), size)),
        ("tokens trained", count(trained)),
        ("sent to anyone", format!("{} bytes", count(report.bytes_sent))),
    ];
    if hosted.row_tokens + hosted.prompt_tokens > 0 {
        rows.push((
            "a hosted model would have got",
            format!(
                "{} tokens of training rows and {} of prompts",
                count(hosted.row_tokens),
                count(hosted.prompt_tokens)
            ),
        ));
    }
    rows
}
