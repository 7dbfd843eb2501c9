//! The layout of the HTML page.

use super::chart::{escape, percent};
use super::data::{ProblemSet, Report};
use super::{
    bars, cost, curves, failures, held_out, infilling, matrix, memorization, paper, story, sweep, table,
    tradeoff,
};

const STYLE: &str = include_str!("style.css");

/// Renders the whole document.
pub fn html(report: &Report) -> String {
    let title = escape(if report.title.is_empty() { "CodeLSI" } else { &report.title });
    let body: String = [
        header(report, &title),
        summary(report),
        sets(report),
        private(report),
        infilled(report),
        memorized(report),
        training(report),
        costs(report),
        data(report),
        method(report),
        run(report),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><main>{body}</main></body></html>\n"
    )
}

fn header(report: &Report, title: &str) -> String {
    format!("<header><h1>{title}</h1><p>{}</p></header>", escape(&report.subtitle))
}

fn section(name: &str, body: &str) -> String {
    format!("<section><h2>{name}</h2>{body}</section>\n")
}

fn figure(svg: &str, caption: &str) -> String {
    format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>")
}

fn summary(report: &Report) -> String {
    if report.models.is_empty() {
        return String::new();
    }
    let headlines: String = report.sets.iter().map(headline).collect();
    let headlines =
        if headlines.is_empty() { headlines } else { format!("<div class=\"cards\">{headlines}</div>") };
    let story = story::story(report);
    // The story's cards say more than the best Pass@1.
    let first = if story.is_empty() { headlines } else { story };
    let mut body = format!("{first}<div class=\"wide\">{}</div>", table::models(report));
    if let (true, [kept, .., gained]) = (report.shows_tradeoff, &report.sets[..]) {
        body += &figure(
            &tradeoff::tradeoff(kept, gained),
            "What each model gains against what it keeps, with 95 % intervals. The line joins the models that no other one beats on both.",
        );
    }
    if let Some(varied) = &report.sweep {
        for set in &report.sets {
            let caption = format!(
                "Pass@1 on {} over {}, with 95 % intervals.",
                escape(&set.name),
                escape(&varied.name)
            );
            body += &figure(&sweep::sweep(varied, set), &caption);
        }
    }
    if report.compare_with_paper {
        body +=
            &format!("<h3>Comparison with the paper</h3><div class=\"wide\">{}</div>", paper::table(report));
    }
    section("Result", &body)
}

/// Renders Pass@1 of the best model of a set in large type.
fn headline(set: &ProblemSet) -> String {
    let best = set.results.iter().max_by(|a, b| a.pass_at_1.total_cmp(&b.pass_at_1));
    best.map_or(String::new(), |r| {
        format!(
            "<div class=\"card\"><b>{}</b><span>Pass@1 on {}, {}</span><small>{:.1} – {:.1}, {} problems × {} samples</small></div>",
            percent(r.pass_at_1), escape(&set.name), escape(&r.name), 100.0 * r.low, 100.0 * r.high,
            r.problems, r.protocol.samples,
        )
    })
}

fn sets(report: &Report) -> String {
    report
        .sets
        .iter()
        .enumerate()
        .filter(|(_, set)| !set.results.is_empty())
        .map(|(number, set)| section(&escape(&set.name), &set_body(number, set)))
        .collect()
}

fn set_body(number: usize, set: &ProblemSet) -> String {
    let mut body = figure(
        &bars::pass_at_1(&set.results),
        "Pass@1 in percent. The lines are 95 % confidence intervals: Clopper's and Pearson's, on the number of independent samples that \
         the problems' samples are worth.",
    );
    if !set.differences.is_empty() {
        body += &figure(
            &bars::differences(set),
            "Differences in points on the same problems, with paired 95 % intervals. A point is filled if the difference is significant.",
        );
        body += &format!("<div class=\"wide\">{}</div>", table::differences(set));
        body += "<p class=\"fine\">Width: of the interval. Detectable: the smallest true difference that such an interval shows with a \
                 power of 80 %. A difference is significant if the larger p-value of its interval and of the sign test is at most \
                 5 %, after Holm's correction for the number of differences in this table; every other one is noise.</p>";
        body += &table::noise(set);
    }
    body += &figure(
        &matrix::matrix(number, &set.results),
        "Every problem, by the share of its samples that pass; the most solved come first. A cell links to the failed samples.",
    );
    body += &failures::failures(number, &set.results);
    body += &figure(&bars::statuses(&set.results), "Verdicts of the samples.");
    body += &format!("<div class=\"wide\">{}</div>", table::failure_modes(&set.results));
    let exploits: usize = set.results.iter().map(|r| r.exploits).sum();
    if exploits > 0 {
        body += &format!(
            "<p class=\"flag\">{exploits} samples count as solved by the rule, but did not reach the end of their tests when \
             they could not interfere with them.</p>"
        );
    }
    let mut shown: Vec<&str> = Vec::new();
    for result in &set.results {
        if !shown.contains(&result.protocol_hash.as_str()) {
            shown.push(&result.protocol_hash);
            body += &format!("<pre>{}</pre>", escape(&result.protocol.to_string()));
        }
    }
    body
}

fn private(report: &Report) -> String {
    if report.held_out.is_empty() {
        return String::new();
    }
    let body = format!("<div class=\"wide\">{}</div>", held_out::table(&report.held_out));
    section("Private code, held out", &(body + held_out::LEGEND + &held_out::noise(&report.held_out)))
}

fn infilled(report: &Report) -> String {
    match report.infilling.is_empty() {
        true => String::new(),
        false => section("Infilling, held out", &infilling::html(&report.infilling)),
    }
}

fn memorized(report: &Report) -> String {
    if report.exposures.is_empty() {
        return String::new();
    }
    let (table, legend) = (memorization::table(&report.exposures), memorization::legend(&report.exposures));
    let body = format!("<div class=\"wide\">{table}</div><p class=\"fine\">{}</p>", escape(&legend));
    section("Memorized or learned", &body)
}

fn training(report: &Report) -> String {
    let mut body = String::new();
    if report.curves.iter().any(|c| !c.training.is_empty()) {
        // The base model has no curve, so the first curve usually belongs to the second model.
        let first = report.models.iter().position(|row| row.name == report.curves[0].name).unwrap_or(0);
        body += &figure(
            &curves::losses(&report.curves, first),
            "Training loss by step; rings are validation loss. The axis reaches to where 95 of 100 points of each curve lie; what is \
             above it is drawn at its top.",
        );
    }
    if !report.timings.is_empty() {
        body += &figure(&bars::timings(&report.timings), "Wall time of each stage.");
    }
    if body.is_empty() { body } else { section("Training", &body) }
}

fn costs(report: &Report) -> String {
    let rows: Vec<(String, String)> =
        cost::costs(report).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    if rows.is_empty() { String::new() } else { section("What it cost", &table::settings(&rows)) }
}

fn data(report: &Report) -> String {
    if report.curation.is_empty() {
        return String::new();
    }
    section(
        "Data",
        &format!(
            "<div class=\"wide\">{}</div><p class=\"fine\">Rows that the curation read, kept and dropped, by reason.</p>",
            table::curation(&report.curation)
        ),
    )
}

fn method(report: &Report) -> String {
    let notes: String = report.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let notes = if notes.is_empty() { notes } else { format!("<ul>{notes}</ul>") };
    let settings = if report.settings.is_empty() { String::new() } else { table::settings(&report.settings) };
    if notes.is_empty() && settings.is_empty() {
        String::new()
    } else {
        section("Method", &(notes + &settings))
    }
}

/// Renders when, where and by what command the run was made.
fn run(report: &Report) -> String {
    match report.environment.is_empty() {
        true => String::new(),
        false => section("Run", &table::settings(&report.environment)),
    }
}
