//! Executable problems of a repository's own functions: made by curation, decontaminated, verified by a judge.

use crate::judging::{JudgeOptions, judge_records};
use crate::output::Output;
use codelsi_curate::problems::{FunctionProblem, ProblemCounts, drop_repeats_of_rows, make_problems};
use codelsi_engine::Result;
use codelsi_eval::judge::verdicts::{CompletionRecord, Verdict};
use codelsi_eval::judge::{Judge, Status};
use codelsi_eval::problem::Problem;
use codelsi_model::jsonl;
use std::path::{Path, PathBuf};

/// Problems that a judge has verified.
pub struct VerifiedProblems {
    pub problems: Vec<FunctionProblem>,
    /// Counts, with the reasons of the judge: `examples-do-not-hold`, `does-not-compile`, `unknown-name`, `throws`,
    /// `times-out`, `needs-node`, `ends-before-its-tests` (of the reference), `empty-body-passes`.
    pub counts: ProblemCounts,
    /// Names of the problems that a training row repeats.
    pub repeats: Vec<String>,
    /// The judge's own description.
    pub judge: String,
}

/// Makes the problems of the sources under `paths`, without those that a row of the files `against` repeats, and keeps those
/// whose reference passes and whose empty body fails. The verdicts are kept in the file `verdicts`; an interrupted run goes
/// on.
///
/// # Errors
/// When a source or a row cannot be read, or when the judge itself fails.
pub fn make_verified(
    paths: &[PathBuf],
    against: &[PathBuf],
    judge: &JudgeOptions,
    verdicts: &Path,
    out: &Output,
) -> Result<VerifiedProblems> {
    let (mut problems, mut counts) = make_problems(paths)?;
    let repeats = drop_repeats_of_rows(&mut problems, against)?;
    repeats.iter().for_each(|_| counts.drop("repeats-row"));
    let judge = judge.open(&[])?;
    let problems = verify(&*judge, problems, &mut counts, verdicts, out)?;
    Ok(VerifiedProblems { problems, counts, repeats, judge: judge.describe() })
}

/// Keeps the problems whose reference passes and whose empty body fails, and counts the others.
fn verify(
    judge: &dyn Judge,
    problems: Vec<FunctionProblem>,
    counts: &mut ProblemCounts,
    verdicts: &Path,
    out: &Output,
) -> Result<Vec<FunctionProblem>> {
    if problems.is_empty() {
        return Ok(problems);
    }
    let judged: Vec<Problem> = problems.iter().map(for_judge).collect();
    let record = |problem: &FunctionProblem, id: &str, completion: &str| CompletionRecord {
        id: format!("{} {id}", problem.name),
        name: problem.name.clone(),
        completion: completion.into(),
        truncated: false,
    };
    let both = |p: &FunctionProblem| [record(p, "reference", &p.solution), record(p, "empty", "}")];
    let completions: Vec<CompletionRecord> = problems.iter().flat_map(both).collect();
    judge_records(judge, &judged, &completions, verdicts, out)?;
    // One verdict a completion, in their order.
    let verdicts: Vec<Verdict> = jsonl::read(verdicts)?;
    let mut verified = Vec::new();
    for (problem, verdicts) in problems.into_iter().zip(verdicts.chunks_exact(2)) {
        match reason_to_drop(&verdicts[0], &verdicts[1]) {
            Some(reason) => counts.drop(reason),
            None => verified.push(problem),
        }
    }
    Ok(verified)
}

/// Returns the reason to drop a problem with these verdicts on its reference and on an empty body.
fn reason_to_drop(reference: &Verdict, empty: &Verdict) -> Option<&'static str> {
    match reference.status {
        Status::Ok if reference.exploit => Some("ends-before-its-tests"),
        Status::Ok => (empty.status == Status::Ok).then_some("empty-body-passes"),
        Status::AssertionError => Some("examples-do-not-hold"),
        Status::SyntaxError => Some("does-not-compile"),
        Status::ReferenceError => Some("unknown-name"),
        Status::Exception => Some("throws"),
        Status::Timeout => Some("times-out"),
        Status::NeedsNode => Some("needs-node"),
    }
}

/// The problem without its reference.
fn for_judge(problem: &FunctionProblem) -> Problem {
    Problem {
        name: problem.name.clone(),
        language: problem.language.clone(),
        prompt: problem.prompt.clone(),
        tests: problem.tests.clone(),
        stop_tokens: problem.stop_tokens.clone(),
    }
}

/// Returns the counts from functions to problems, as lines of a number and what it counts.
pub fn count_lines(counts: &ProblemCounts, verified: usize) -> [(usize, &'static str); 4] {
    [
        (counts.functions, "functions"),
        (counts.with_examples, "with examples"),
        (counts.self_contained, "self-contained"),
        (verified, "verified"),
    ]
}
