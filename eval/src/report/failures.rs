//! The failed samples by problem, which the cells of the matrix link to.

use super::chart::escape;
use crate::evaluate::{FailedSample, ModelResult};

/// Returns the HTML id of a problem's failures; `None` if no model has a failed sample of it.
pub fn element_id(set: usize, problem: usize, results: &[ModelResult]) -> Option<String> {
    let failed = results.iter().any(|r| r.per_problem[problem].failure.is_some());
    failed.then(|| format!("failure-{set}-{problem}"))
}

/// Renders, for every problem with a failure, the first failed sample of each model and its diagnostics.
pub fn failures(set: usize, results: &[ModelResult]) -> String {
    let Some(first) = results.first() else { return String::new() };
    let problems: String = (0..first.per_problem.len())
        .filter_map(|i| Some(problem(&element_id(set, i, results)?, i, results)))
        .collect();
    match problems.is_empty() {
        true => problems,
        false => format!(
            "<div class=\"failures\">{problems}</div><p class=\"fine\">Open a problem to see the first failed sample of each \
             model and the output of the judge's tools.</p>"
        ),
    }
}

fn problem(id: &str, i: usize, results: &[ModelResult]) -> String {
    let score =
        |r: &ModelResult| format!("{} {}/{}", r.name, r.per_problem[i].correct, r.per_problem[i].samples);
    let scores = results.iter().map(score).collect::<Vec<_>>().join(", ");
    let samples: String =
        results.iter().filter_map(|r| Some(sample(&r.name, r.per_problem[i].failure.as_ref()?))).collect();
    format!(
        "<details><summary>{} <small>{}</small></summary><div id=\"{id}\">{samples}</div></details>",
        escape(&results[0].per_problem[i].name),
        escape(&scores)
    )
}

fn sample(model: &str, failure: &FailedSample) -> String {
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
