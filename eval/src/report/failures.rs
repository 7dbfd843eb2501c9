//! What failed, problem by problem: one click away from its cell in the matrix.

use super::chart::escape;
use crate::evaluate::{Failure, ModelResult};

/// The place of a problem's failures on the page; none where no model failed it, or nothing was kept.
pub fn place(set: usize, problem: usize, results: &[ModelResult]) -> Option<String> {
    let failed = results.iter().any(|r| r.per_problem[problem].failure.is_some());
    failed.then(|| format!("failure-{set}-{problem}"))
}

/// For every problem that some model fails: what each that does wrote first, and what was said of it.
pub fn failures(set: usize, results: &[ModelResult]) -> String {
    let Some(first) = results.first() else { return String::new() };
    let problems: String = (0..first.per_problem.len())
        .filter_map(|i| Some(problem(&place(set, i, results)?, i, results)))
        .collect();
    match problems.is_empty() {
        true => problems,
        false => format!(
            "<div class=\"failures\">{problems}</div><p class=\"fine\">A problem opens to the first sample of each model \
             that fails it, and to what the judge's tools said.</p>"
        ),
    }
}

fn problem(place: &str, i: usize, results: &[ModelResult]) -> String {
    let score =
        |r: &ModelResult| format!("{} {}/{}", r.name, r.per_problem[i].correct, r.per_problem[i].samples);
    let scores = results.iter().map(score).collect::<Vec<_>>().join(", ");
    let samples: String =
        results.iter().filter_map(|r| Some(sample(&r.name, r.per_problem[i].failure.as_ref()?))).collect();
    format!(
        "<details><summary>{} <small>{}</small></summary><div id=\"{place}\">{samples}</div></details>",
        escape(&results[0].per_problem[i].name),
        escape(&scores)
    )
}

fn sample(model: &str, failure: &Failure) -> String {
    let message = match failure.message.is_empty() {
        true => String::new(),
        false => format!("<pre class=\"message\">{}</pre>", escape(&failure.message)),
    };
    format!(
        "<h3>{}: {:?}</h3><pre>{}</pre>{message}",
        escape(model),
        failure.status,
        escape(failure.completion.trim_end())
    )
}
