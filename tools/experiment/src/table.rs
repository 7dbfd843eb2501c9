//! The paper's table as text.

use codelsi_eval::infilling::{InfillProtocol, InfillResult};
use codelsi_eval::report::{self, ProblemSet, Report, RepositoryResult, TrainingSummary};
use codelsi_eval::statistics::ConfidenceInterval;
use std::fmt::Write;

/// Renders a report: training summaries, Pass@1, paired differences and held-out results.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    if !report.models.is_empty() {
        let width = column_width(report.models.iter().map(|row| &row.name));
        let _ = writeln!(
            text,
            "{:<width$}{:>10}{:>18}{:>18}{:>10}{:>9}{:>11}",
            "model", "trainable", "loss", "validation loss", "tokens/s", "seconds", "peak"
        );
        report.models.iter().for_each(|row| text.push_str(&training_row(row, width)));
        text.push('\n');
    }
    text.push_str(&render_sets(&report.sets));
    text.push_str(&render_infilling(&report.infilling));
    text.push_str(&held_out_results(&report.held_out));
    text.push_str(&exposures(report));
    report::costs(report).iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\n")));
    text
}

/// Renders what models give away of canaries.
fn exposures(report: &Report) -> String {
    if report.exposures.is_empty() {
        return String::new();
    }
    let width = column_width(report.exposures.iter().map(|exposure| &exposure.model));
    let line = |cells: Vec<String>| {
        format!("  {:<width$}{:>22}{:>10}{:>34}\n", cells[0], cells[1], cells[2], cells[3])
    };
    let header = report::EXPOSURE_HEADER.map(String::from).to_vec();
    let rows = report.exposures.iter().map(|exposure| line(report::exposure_cells(exposure)));
    format!("Memorized or learned\n{}{}\n", line(header), rows.collect::<String>())
}

/// Renders the models' results on held-out private rows.
fn held_out_results(repositories: &[RepositoryResult]) -> String {
    let mut text = String::new();
    for (repository, differences) in repositories.iter().zip(report::held_out_differences(repositories)) {
        let rows = repository.readings.first().map_or(0, |r| r.rows);
        let (shown, of) = repository.shown;
        let _ = writeln!(
            text,
            "{}: {} rows learned (they show {shown} of {of} exported names), {rows} held out",
            repository.repository, repository.trained
        );
        let width = column_width(repository.readings.iter().map(|r| &r.model));
        for r in &repository.readings {
            let share = |i: ConfidenceInterval| {
                format!("{:.1} % [{:.1}, {:.1}]", 100.0 * i.value, 100.0 * i.low, 100.0 * i.high)
            };
            let _ = writeln!(
                text,
                "  {:<width$}perplexity {}   names found {}   parses {}   invents {}",
                r.model,
                r.perplexity.map_or("-".into(), |p| format!("{p:.2}")),
                r.names.map_or("-".into(), share),
                share(r.valid),
                share(r.invented),
            );
        }
        differences.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

/// Renders exact match and edit similarity with 95 % confidence intervals, and paired differences.
pub fn render_infilling(results: &[InfillResult]) -> String {
    let mut text = String::new();
    let Some(first) = results.first() else { return text };
    let InfillProtocol { rows, samples, .. } = first.protocol;
    let _ = writeln!(text, "infilling: {rows} held-out rows, {samples} samples each");
    let width = column_width(results.iter().map(|r| &r.model));
    for r in results {
        let share = |i: ConfidenceInterval| {
            format!("{:.1} % [{:.1}, {:.1}]", 100.0 * i.value, 100.0 * i.low, 100.0 * i.high)
        };
        let (exact, similar) = (share(r.exact_match), share(r.edit_similarity));
        let _ = writeln!(text, "  {:<width$}exact match {exact}, edit similarity {similar}", r.model);
    }
    report::infill_difference_lines(results).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

/// Returns the width of a column of names.
fn column_width<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(|name| name.chars().count() + 2).max().unwrap_or(0).max(18)
}

fn training_row(row: &TrainingSummary, width: usize) -> String {
    let share = match (row.trainable, row.total) {
        (Some(n), Some(of)) if of > 0 => format!("{:.2} %", 100.0 * n as f64 / of as f64),
        _ => "-".into(),
    };
    let arrow = |pair: Option<(f64, f64)>| pair.map_or("-".into(), |(a, b)| format!("{a:.3} -> {b:.3}"));
    let rate = row.tokens_per_s.map_or("-".into(), |r| format!("{r:.0}"));
    let loss = arrow(row.first_loss.zip(row.last_loss));
    let seconds =
        row.tokens.zip(row.tokens_per_s).map_or("-".into(), |(n, rate)| format!("{:.0}", n as f64 / rate));
    let peak = row.peak_bytes.map_or("-".into(), report::size);
    format!(
        "{:<width$}{share:>10}{loss:>18}{:>18}{rate:>10}{seconds:>9}{peak:>11}\n",
        row.name,
        arrow(row.validation_loss)
    )
}

/// Renders Pass@1 with 95 % confidence intervals, and paired differences.
pub fn render_sets(sets: &[ProblemSet]) -> String {
    let mut text = String::new();
    for set in sets {
        let first = set.results.first();
        let (problems, samples) = first.map_or((0, 0), |r| (r.problems, r.protocol.samples));
        let _ = writeln!(text, "Pass@1 on {}: {problems} problems, {samples} samples each", set.name);
        let width = column_width(set.results.iter().map(|r| &r.name));
        for r in &set.results {
            let _ = writeln!(
                text,
                "  {:<width$}{:>6.1} %   [{:.1}, {:.1}]",
                r.name,
                100.0 * r.pass_at_1,
                100.0 * r.low,
                100.0 * r.high
            );
            if let Some(needs) = r.needs_node() {
                let _ = writeln!(text, "  {:<width$}{needs}", "");
            }
        }
        for r in &set.results {
            r.protocol.limits().iter().for_each(|limits| text.push_str(&format!("  {}: {limits}\n", r.name)));
        }
        for (c, verdict) in set.differences.iter().zip(set.verdicts()) {
            let i = c.difference.interval;
            let _ = writeln!(
                text,
                "  {} - {}: {:+.1} points [{:+.1}, {:+.1}]{}",
                c.to,
                c.from,
                100.0 * i.value,
                100.0 * i.low,
                100.0 * i.high,
                verdict.noise.map_or(String::new(), |reason| format!("   {reason}"))
            );
        }
        text.push('\n');
    }
    text
}
