//! The judge of a set of problems, and verdicts on stored completions.

use crate::output::Output;
use codelsi_engine::Result;
use codelsi_eval::judge::verdicts::{CompletionRecord, Summary, judge_all, judge_file};
use codelsi_eval::judge::{Judge, JudgeKind, open_default};
use codelsi_eval::problem::Problem;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A judge and the paths of its tools.
#[derive(Clone, Debug, Default)]
pub struct JudgeOptions {
    /// Kind of judge; by default the best one of the machine for the problems' language.
    pub judge: Option<JudgeKind>,
    /// The TypeScript compiler of the tsc judge; by default found on PATH or in .tools.
    pub tsc: Option<PathBuf>,
    /// The node of the tsc and the node judge; by default found on PATH.
    pub node: Option<PathBuf>,
}

impl JudgeOptions {
    /// Opens the judge of `problems` and tests its sandbox: the judge that was named, else the best one of the machine for
    /// their language.
    ///
    /// # Errors
    /// When the sandbox fails its test, a tool is missing, or no judge supports the problems' language.
    pub fn open(&self, problems: &[Problem]) -> Result<Box<dyn Judge>> {
        let (tsc, node) = (self.tsc.clone(), self.node.clone());
        match self.judge {
            Some(kind) => kind.open(tsc, node),
            None => open_default(problems.first().map_or("ts", |problem| &problem.language), tsc, node),
        }
    }
}

/// Judges the completions of a file, with a progress bar, and writes the verdicts into the file `verdicts`.
///
/// # Errors
/// As [`judge_file`].
pub fn judge_completions(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &Path,
    verdicts: &Path,
    out: &Output,
) -> Result<Summary> {
    with_bar(out, |progress| judge_file(judge, problems, completions, verdicts, progress))
}

/// Judges completions in memory as [`judge_completions`] does those of a file.
///
/// # Errors
/// As [`judge_all`].
pub fn judge_records(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &[CompletionRecord],
    verdicts: &Path,
    out: &Output,
) -> Result<Summary> {
    with_bar(out, |progress| judge_all(judge, problems, completions, verdicts, progress))
}

/// Runs `work` with a progress bar of its judged programs.
fn with_bar(
    out: &Output,
    work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> Result<Summary>,
) -> Result<Summary> {
    let bar = Mutex::new(None);
    let summary = work(&|done, total| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| out.bar("judge", total)).update(done, "");
    })?;
    bar.into_inner().unwrap_or_else(|e| e.into_inner()).iter().for_each(|bar| bar.finish());
    Ok(summary)
}
