//! The comparison of this run with the paper (arXiv 2509.14373).

use super::chart::{count, duration, escape, percent};
use super::data::{ProblemSet, Report, TrainingSummary};
use crate::evaluate::ModelResult;

/// Returns the rows of the comparison: the quantity, the paper's figure, this run's figure.
pub fn rows(report: &Report) -> Vec<[String; 3]> {
    let general = report.models.iter().find(|row| row.name == "general");
    let set = report.sets.first();
    let of = |get: &dyn Fn(&TrainingSummary) -> Option<String>| {
        general.and_then(get).unwrap_or_else(|| "–".into())
    };
    let row = |what: &str, paper: &str, ours: String| [what.to_string(), paper.to_string(), ours];
    vec![
        row("base model", "Code Llama 13B", report.subtitle.clone()),
        row(
            "trainable",
            &format!("{} of {} (0.4785 %)", count(62_586_880), count(13_078_615_040)),
            of(&trainable),
        ),
        row("general stage", "about 140 steps, 9.2 M tokens", of(&amount)),
        row("validation loss", "0.7062 → 0.4268", of(&validation)),
        row(
            "training time",
            &format!("under one hour on two A100: {} tokens/s or more", count(2_550)),
            of(&time),
        ),
        row(
            "problems",
            "159 (HumanEval-TS), 20 samples each, temperature 0.2",
            set.map_or("–".into(), problems),
        ),
        row("Pass@1, base", "39.0 % (Code Llama 13B Instruct, of another paper)", pass_at_1(set, "base")),
        row("Pass@1, general", "42.0 %", pass_at_1(set, "general")),
        row(
            "general − base",
            "+3.0 points: not significant, since the standard error of one result is 3.9",
            difference(set),
        ),
    ]
}

fn trainable(row: &TrainingSummary) -> Option<String> {
    let (n, of) = (row.trainable?, row.total?);
    Some(format!("{} of {} ({:.4} %)", count(n), count(of), 100.0 * n as f64 / of.max(1) as f64))
}

fn amount(row: &TrainingSummary) -> Option<String> {
    Some(format!("{} steps, {} tokens", count(row.steps? as u64), count(row.tokens?)))
}

fn validation(row: &TrainingSummary) -> Option<String> {
    row.validation_loss.map(|(before, after)| format!("{before:.4} → {after:.4}"))
}

fn time(row: &TrainingSummary) -> Option<String> {
    let rate = row.tokens_per_s?;
    Some(format!("{}: {} tokens/s", duration(row.tokens? as f64 / rate), count(rate.round() as u64)))
}

fn problems(set: &ProblemSet) -> String {
    set.results.first().map_or("–".into(), |r| {
        format!(
            "{} ({}), {} samples each, temperature {}",
            r.problems, set.name, r.protocol.samples, r.protocol.temperature
        )
    })
}

fn pass_at_1(set: Option<&ProblemSet>, model: &str) -> String {
    let result = set.and_then(|set| set.results.iter().find(|r| r.name == model));
    result.map_or("–".into(), |r: &ModelResult| {
        format!("{} [{:.1}, {:.1}]", percent(r.pass_at_1), 100.0 * r.low, 100.0 * r.high)
    })
}

fn difference(set: Option<&ProblemSet>) -> String {
    let mut compared = set.into_iter().flat_map(|set| set.differences.iter().zip(set.verdicts()));
    let compared = compared.find(|(c, _)| c.from == "base" && c.to == "general");
    compared.map_or("–".into(), |(c, verdict)| {
        let i = c.difference.interval;
        let noise = verdict.noise.map_or(String::new(), |noise| format!(": {noise}"));
        format!("{:+.1} points [{:+.1}, {:+.1}]{noise}", 100.0 * i.value, 100.0 * i.low, 100.0 * i.high)
    })
}

/// Renders the comparison in HTML.
pub fn table(report: &Report) -> String {
    let row = |[what, paper, ours]: [String; 3]| {
        format!("<tr><th>{}</th><td>{}</td><td>{}</td></tr>", escape(&what), escape(&paper), escape(&ours))
    };
    let rows: String = rows(report).into_iter().map(row).collect();
    format!(
        "<table class=\"text\"><thead><tr><th></th><th>the paper</th><th>this run</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}
