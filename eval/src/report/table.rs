//! The HTML tables: models, differences, failure modes, curation, settings.

use super::bars::signed;
use super::chart::{count, escape, percent, size};
use super::data::{CurationSummary, ModelComparison, ProblemSet, Report, TrainingSummary};
use crate::evaluate::ModelResult;
use crate::statistics::Verdict;

/// Renders the paper's table, one row per model; columns without any value are left out.
pub fn models(report: &Report) -> String {
    let rows = &report.models;
    type Cell = fn(&TrainingSummary) -> Option<String>;
    let columns: [(&str, Cell); 5] = [
        ("trainable", |r| {
            Some(stacked(&share(r.trainable.filter(|n| *n > 0)?, r.total?), &count(r.trainable?)))
        }),
        ("tokens", |r| Some(stacked(&count(r.tokens?), &format!("{} steps", count(r.steps? as u64))))),
        ("training loss", |r| Some(loss((r.first_loss?, r.last_loss?)))),
        ("validation loss", |r| r.validation_loss.map(loss)),
        ("tokens/s", |r| {
            let peak = r.peak_bytes.map_or(String::new(), |bytes| format!("{} peak", size(bytes)));
            Some(stacked(&count(r.tokens_per_s?.round() as u64), &peak))
        }),
    ];
    let shown: Vec<_> = columns.iter().filter(|(_, cell)| rows.iter().any(|r| cell(r).is_some())).collect();
    let mut html = String::from("<table><thead><tr><th>model</th>");
    report.sets.iter().for_each(|set| html += &format!("<th>{}</th>", stacked("Pass@1", &escape(&set.name))));
    shown.iter().for_each(|(name, _)| html += &format!("<th>{name}</th>"));
    html += "</tr></thead><tbody>";
    for (i, row) in rows.iter().enumerate() {
        html += &format!(r#"<tr><th><i class="key c{}"></i>{}</th>"#, i % 6, escape(&row.name));
        report.sets.iter().for_each(|set| html += &format!("<td>{}</td>", pass_at_1(set, &row.name)));
        for (_, cell) in &shown {
            html += &format!("<td>{}</td>", cell(row).unwrap_or_else(|| "–".into()));
        }
        html += "</tr>";
    }
    html + "</tbody></table>"
}

fn stacked(main: &str, below: &str) -> String {
    format!("{main}<small>{below}</small>")
}

fn pass_at_1(set: &ProblemSet, model: &str) -> String {
    let result = set.results.iter().find(|r| r.name == model);
    result.map_or("–".into(), |r| {
        let needs = r.needs_node().map_or(String::new(), |text| format!("<small>{text}</small>"));
        format!(
            "<b>{}</b><small>{:.1} – {:.1}</small>{needs}",
            percent(r.pass_at_1),
            100.0 * r.low,
            100.0 * r.high
        )
    })
}

fn share(trainable: u64, total: u64) -> String {
    format!("{:.2}\u{202f}%", 100.0 * trainable as f64 / total.max(1) as f64)
}

/// Formats the final loss and the initial one.
fn loss((before, after): (f64, f64)) -> String {
    stacked(&format!("{after:.3}"), &format!("from {before:.3}"))
}

/// Renders the statistics of each paired difference.
pub fn differences(set: &ProblemSet) -> String {
    let mut html = String::from(
        "<table><thead><tr><th>difference</th><th>points</th><th>95 % interval</th><th>width</th><th>detectable</th>\
         <th>better on</th><th>worse on</th><th>p, corrected</th></tr></thead><tbody>",
    );
    for (c, verdict) in set.differences.iter().zip(set.verdicts()) {
        let d = &c.difference;
        let points = |v: f64| signed(100.0 * v, 1);
        let p = if verdict.p < 0.001 { "&lt; 0.001".into() } else { format!("{:.3}", verdict.p) };
        html += &format!(
            "<tr><th>{} − {}</th><td><b>{}</b></td><td>{} … {}</td><td>{:.1}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{p}</td></tr>",
            escape(&c.to),
            escape(&c.from),
            points(d.interval.value),
            points(d.interval.low),
            points(d.interval.high),
            100.0 * d.interval.width(),
            100.0 * d.detectable,
            d.wins,
            d.losses,
        );
    }
    html + "</tbody></table>"
}

/// Renders the failure modes as shares of all samples, and the names most often invented.
pub fn failure_modes(results: &[ModelResult]) -> String {
    const NAMES: usize = 5;
    let mut html = String::from(
        "<table><thead><tr><th>samples with</th><th>a Markdown loop</th><th>prose for code</th>\
         <th>invented methods of the library</th><th>of a given class</th><th>most often</th>\
         <th>longest verbatim run</th></tr></thead><tbody>",
    );
    for (i, r) in results.iter().enumerate() {
        let modes = &r.failure_modes;
        html += &format!(r#"<tr><th><i class="key c{}"></i>{}</th>"#, i % 6, escape(&r.name));
        for n in [modes.markdown_loops, modes.prose, modes.invented_methods, modes.invented_private] {
            let share = percent(n as f64 / r.samples.max(1) as f64);
            html += &format!("<td>{}</td>", stacked(&share, &count(n as u64)));
        }
        html += &format!("<td class=\"names\">{}</td>", escape(&modes.most_invented(NAMES)));
        let verbatim = r.verbatim.as_ref().map_or("–".to_string(), |(n, run)| {
            format!("<span title=\"{}\">{n} tokens</span>", escape(run))
        });
        html += &format!("<td>{verbatim}</td></tr>");
    }
    html + "</tbody></table>"
}

/// Renders a warning for each difference from which no gain or loss may be claimed.
pub fn noise(set: &ProblemSet) -> String {
    let warning = |(c, verdict): (&ModelComparison, Verdict)| {
        let noise = verdict.noise?;
        Some(format!("<p class=\"flag\">{} − {}: {noise}.</p>", escape(&c.to), escape(&c.from)))
    };
    set.differences.iter().zip(set.verdicts()).filter_map(warning).collect()
}

/// Renders the rows read, kept and dropped, by source and reason.
pub fn curation(sources: &[CurationSummary]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for (reason, _) in sources.iter().flat_map(|s| &s.dropped) {
        if !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    let mut html = String::from("<table><thead><tr><th>source</th><th>read</th><th>kept</th>");
    reasons.iter().for_each(|reason| html += &format!("<th>{}</th>", escape(reason)));
    html += "</tr></thead><tbody>";
    for source in sources {
        let (read, kept) = (count(source.read as u64), count(source.kept as u64));
        html += &format!("<tr><th>{}</th><td>{read}</td><td><b>{kept}</b></td>", escape(&source.name));
        for reason in &reasons {
            let dropped = source.dropped.iter().find(|(r, _)| r == reason).map_or(0, |(_, n)| *n);
            html += &format!("<td>{}</td>", count(dropped as u64));
        }
        html += "</tr>";
    }
    html + "</tbody></table>"
}

/// Renders names and values as a list.
pub fn settings(settings: &[(String, String)]) -> String {
    let row =
        |(name, value): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    format!("<dl>{}</dl>", settings.iter().map(row).collect::<String>())
}
