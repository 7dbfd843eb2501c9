//! The failed samples by problem, which the cells of the matrix link to.

use super::chart::escape;
use crate::evaluate::{FailedSample, ModelResult};

/// Returns the HTML id of a problem's failures; `None` if no model has a failed sample of it.
pub fn element_id(set: usize, problem: usize, results: &[ModelResult]) -> Option<String> {
    let failed = results.iter().any(|r| r.per_problem[problem].failure.is_some());
    failed.then(|| format!("failure-{set}-{problem}"))
}

/// Renders, for every problem with a failure, its task, and the first failed sample of each model with its diagnostics.
pub fn failures(set: usize, results: &[ModelResult]) -> String {
    let problems: String = by_interest(results)
        .into_iter()
        .filter_map(|i| Some(problem(&element_id(set, i, results)?, i, results)))
        .collect();
    match problems.is_empty() {
        true => problems,
        false => format!(
            "<div class=\"failures\">{problems}</div><p class=\"fine\">Open a problem to see its task, the first failed sample of \
             each model and the output of the judge's tools. Problems on which the models differ most come first, then those that \
             more samples solve.</p>"
        ),
    }
}

/// Returns the problems, those first on which the models differ most, then those that are nearer to being solved.
fn by_interest(results: &[ModelResult]) -> Vec<usize> {
    let Some(first) = results.first() else { return Vec::new() };
    let interest = |i: usize| {
        let shares = results.iter().map(|r| &r.per_problem[i]);
        let shares: Vec<f64> = shares.map(|p| p.correct as f64 / p.samples.max(1) as f64).collect();
        let (low, high) = shares.iter().fold((1f64, 0f64), |(low, high), s| (low.min(*s), high.max(*s)));
        (high - low, shares.iter().sum::<f64>())
    };
    let interest: Vec<(f64, f64)> = (0..first.per_problem.len()).map(interest).collect();
    let mut order: Vec<usize> = (0..interest.len()).collect();
    let key = |i: usize| interest[i];
    order.sort_by(|&a, &b| key(b).0.total_cmp(&key(a).0).then(key(b).1.total_cmp(&key(a).1)));
    order
}

fn problem(id: &str, i: usize, results: &[ModelResult]) -> String {
    let score =
        |r: &ModelResult| format!("{} {}/{}", r.name, r.per_problem[i].correct, r.per_problem[i].samples);
    let scores = results.iter().map(score).collect::<Vec<_>>().join(", ");
    let prompt = results.iter().find_map(|r| r.per_problem[i].failure.as_ref().map(|f| f.prompt.trim_end()));
    let task = match prompt.unwrap_or_default() {
        "" => String::new(),
        prompt => format!("<pre class=\"task\">{}</pre>", escape(prompt)),
    };
    let samples: String =
        results.iter().filter_map(|r| Some(sample(&r.name, r.per_problem[i].failure.as_ref()?))).collect();
    format!(
        "<details><summary>{} <small>{}</small></summary><div id=\"{id}\">{task}{samples}</div></details>",
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
