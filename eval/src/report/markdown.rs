//! The report as Markdown: every figure, without the charts.

use super::chart::{count, duration, size};
use super::cost;
use super::data::{ModelComparison, ProblemSet, Report, RepositoryResult, TrainingSummary};
use super::held_out;
use super::infilling;
use super::memorization;
use super::paper;
use crate::infilling::InfillResult;
use crate::statistics::Verdict;
use std::fmt::Write;

/// Renders the whole document.
pub fn markdown(report: &Report) -> String {
    let title = if report.title.is_empty() { "CodeLSI" } else { &report.title };
    let mut text = format!("# {title}\n\n{}\n\n", report.subtitle);
    if !report.models.is_empty() {
        table(
            &mut text,
            &["model", "trainable", "steps", "tokens", "loss", "validation loss", "tokens/s", "peak"],
            report.models.iter().map(training),
        );
    }
    if report.compare_with_paper {
        text += "## Comparison with the paper\n\n";
        let rows = paper::rows(report).into_iter().map(Vec::from);
        table(&mut text, &["", "the paper", "this run"], rows);
    }
    report.sets.iter().for_each(|set| problems(&mut text, set));
    private(&mut text, &report.held_out);
    infilled(&mut text, &report.infilling);
    if !report.exposures.is_empty() {
        let _ = writeln!(text, "## Memorized or learned\n\n{}\n", memorization::legend(&report.exposures));
        table(&mut text, &memorization::HEADER, report.exposures.iter().map(memorization::cells));
    }
    for curation in &report.curation {
        let _ = writeln!(
            text,
            "## Data: {}\n\n{} of {} kept.\n",
            curation.name,
            count(curation.kept as u64),
            count(curation.read as u64)
        );
        let rows = curation.dropped.iter().map(|(reason, n)| vec![reason.clone(), count(*n as u64)]);
        table(&mut text, &["dropped because", "rows"], rows);
    }
    if !report.timings.is_empty() {
        text += "## Time\n\n";
        let rows = report.timings.iter().map(|t| vec![t.name.clone(), duration(t.seconds)]);
        table(&mut text, &["stage", "time"], rows);
    }
    let cost = cost::costs(report);
    if !cost.is_empty() {
        text += "## What it cost\n\n";
        table(&mut text, &["", ""], cost.into_iter().map(|(name, value)| vec![name.to_string(), value]));
    }
    if !report.notes.is_empty() {
        text += "## Notes\n\n";
        report.notes.iter().for_each(|note| text += &format!("- {note}\n"));
        text.push('\n');
    }
    for (title, rows) in [("Recipe", &report.settings), ("Run", &report.environment)] {
        if !rows.is_empty() {
            let _ = writeln!(text, "## {title}\n");
            let rows = rows.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
            table(&mut text, &["setting", "value"], rows);
        }
    }
    text
}

fn training(row: &TrainingSummary) -> Vec<String> {
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let arrow = |pair: Option<(f64, f64)>| or(pair.map(|(a, b)| format!("{a:.4} → {b:.4}")));
    let share =
        row.trainable.zip(row.total).map(|(n, of)| format!("{:.2} %", 100.0 * n as f64 / of.max(1) as f64));
    vec![
        row.name.clone(),
        or(share),
        or(row.steps.map(|n| count(n as u64))),
        or(row.tokens.map(count)),
        arrow(row.first_loss.zip(row.last_loss)),
        arrow(row.validation_loss),
        or(row.tokens_per_s.map(|rate| count(rate.round() as u64))),
        or(row.peak_bytes.map(size)),
    ]
}

/// Renders Pass@1 with intervals, paired differences, failure modes and the protocol.
fn problems(text: &mut String, set: &ProblemSet) {
    let _ = writeln!(text, "## {}\n", set.name);
    let point = |share: f64| format!("{:.1}", 100.0 * share);
    let results = set.results.iter().map(|r| {
        let statuses = r.statuses.iter().map(|(status, n)| format!("{status:?} {n}"));
        let modes = &r.failure_modes;
        vec![
            r.name.clone(),
            format!("**{}**", point(r.pass_at_1)),
            format!("{} … {}", point(r.low), point(r.high)),
            statuses.chain(r.needs_node()).collect::<Vec<_>>().join(", "),
            format!(
                "{} / {} / {} / {}",
                modes.markdown_loops, modes.prose, modes.invented_methods, modes.invented_private
            ),
            r.verbatim.as_ref().map_or("-".into(), |(n, _)| n.to_string()),
        ]
    });
    let header = [
        "model",
        "Pass@1 %",
        "95 % interval",
        "samples",
        "loops / prose / invented methods of the library / of a given class",
        "verbatim tokens",
    ];
    table(text, &header, results);
    let row = |(c, verdict): (&ModelComparison, Verdict)| {
        let (d, points) = (&c.difference, |share: f64| format!("{:+.1}", 100.0 * share));
        vec![
            format!("{} − {}", c.to, c.from),
            points(d.interval.value),
            format!("{} … {}", points(d.interval.low), points(d.interval.high)),
            point(d.interval.width()),
            point(d.detectable),
            format!("{:.3}", verdict.p),
            verdict.noise.unwrap_or_default(),
        ]
    };
    if !set.differences.is_empty() {
        let header = ["difference", "points", "95 % interval", "width", "detectable", "p, corrected", ""];
        table(text, &header, set.differences.iter().zip(set.verdicts()).map(row));
    }
    if let Some(first) = set.results.first() {
        let _ = writeln!(text, "```\n{}\n```\n", first.protocol.to_string().trim_end());
    }
}

/// Renders the results on private rows that no model has trained on.
fn private(text: &mut String, repositories: &[RepositoryResult]) {
    if repositories.is_empty() {
        return;
    }
    text.push_str("## Private code, held out\n\n");
    table(text, &held_out::HEADER, repositories.iter().flat_map(held_out::cells));
    let notes = held_out::differences(repositories).into_iter().flatten();
    notes.for_each(|note| *text += &format!("- {note}\n"));
    text.push('\n');
}

/// Renders the results on holes that no model has trained on.
fn infilled(text: &mut String, results: &[InfillResult]) {
    if results.is_empty() {
        return;
    }
    let _ = writeln!(text, "## Infilling, held out\n\n{}\n", infilling::LEGEND);
    table(text, &infilling::HEADER, results.iter().map(infilling::cells));
    infilling::difference_lines(results).iter().for_each(|line| *text += &format!("- {line}\n"));
    let _ = writeln!(text, "\n```\n{}\n```\n", infilling::protocols(results).join("\n"));
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |\n|{}", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        let cells = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
}
