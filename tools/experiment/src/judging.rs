//! The judge of a set of problems, and verdicts on stored completions.

use crate::output::Output;
use codelsi_engine::Result;
use codelsi_eval::judge::verdicts::{CompletionRecord, Summary, judge_all};
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

/// Judges completions, with a progress bar, and writes the verdicts into the file `verdicts`.
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
    let bar = Mutex::new(None);
    let summary = judge_all(judge, problems, completions, verdicts, &|done, total| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| out.bar("judge", total)).update(done, "");
    })?;
    bar.into_inner().unwrap_or_else(|e| e.into_inner()).iter().for_each(|bar| bar.finish());
    Ok(summary)
}
