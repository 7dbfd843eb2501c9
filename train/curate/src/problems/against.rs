//! Decontamination of problems against training rows: the reverse of what curation does, by the same evidence.

use super::FunctionProblem;
use crate::benchmark::{Benchmark, BenchmarkProblem};
use crate::language::Language;
use codelsi_engine::Result;
use codelsi_model::jsonl;
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;

/// The fields of a training row that matter here.
#[derive(Deserialize)]
struct TrainingRow {
    instruction: String,
    output: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    language: Language,
}

/// Drops the problems whose prompt, examples or solution a row of these files repeats, and returns the names of the dropped.
///
/// # Errors
/// A file that cannot be read, or a line without `instruction` and `output` (the message names both).
pub fn drop_repeats_of_rows<P: AsRef<Path>>(
    problems: &mut Vec<FunctionProblem>,
    files: &[P],
) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    for file in files {
        let mut rows: Vec<TrainingRow> = jsonl::read(file)?;
        // A row tells the first problem that it repeats; it is asked again until it repeats none of those left.
        while !rows.is_empty() {
            let benchmark = Benchmark::new(&problems.iter().map(benchmark_problem).collect::<Vec<_>>());
            let repeats = |row: &TrainingRow| {
                benchmark
                    .find(row.language, &row.name, &row.instruction, &row.output)
                    .map(|found| found.problem)
            };
            let found: Vec<Option<String>> = rows.par_iter().map(repeats).collect();
            let mut names = found.iter();
            rows.retain(|_| names.next().is_some_and(Option::is_some));
            let found: HashSet<String> = found.into_iter().flatten().collect();
            problems.retain(|problem| !found.contains(&problem.name));
            dropped.extend(found);
        }
    }
    dropped.sort();
    Ok(dropped)
}

fn benchmark_problem(problem: &FunctionProblem) -> BenchmarkProblem {
    BenchmarkProblem {
        name: problem.name.clone(),
        prompt: problem.prompt.clone(),
        tests: problem.tests.clone(),
        language: Some(problem.language.clone()),
        solution: Some(problem.solution.clone()),
    }
}
