//! The judge interface and its answers.

use crate::problem::CandidateProgram;
use codelsi_engine::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// MultiPL-E's statuses, and that of a program on which a judge cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    #[serde(rename = "OK")]
    Ok,
    AssertionError,
    SyntaxError,
    ReferenceError,
    Exception,
    Timeout,
    /// The program used a part of Node that the judge lacks, and failed; counts as not solved.
    NeedsNode,
}

/// The number of programs or samples by status.
pub type StatusCounts = BTreeMap<Status, usize>;

/// The judgement of one program.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub status: Status,
    /// Diagnostics of the compiler or the runtime in a few printable lines; empty if the program is solved.
    pub message: String,
    /// Compiling and running, wall time.
    pub seconds: f64,
}

/// A way of deciding if a program is solved.
pub trait Judge: Sync {
    /// The languages that it accepts, in the notation of [`crate::problem::Problem::language`].
    fn languages(&self) -> &'static [&'static str];

    /// One line for protocols and reports: the rule, the limits, the versions.
    fn describe(&self) -> String;

    /// The reason for which this judge was chosen; empty if it was named.
    fn choice(&self) -> &str {
        ""
    }

    /// Judges a program.
    ///
    /// # Errors
    /// When the judge itself fails; a program's failure is a [`Status`].
    fn judge(&self, program: &CandidateProgram) -> Result<Judgement>;

    /// The largest number of programs that [`Judge::judge_batch`] should be given at once.
    fn batch_size(&self) -> usize {
        1
    }

    /// Judges each program as [`Judge::judge`] does, and passes each judgement with the program's index to
    /// `on_judgement`.
    ///
    /// # Errors
    /// As [`Judge::judge`], and those of `on_judgement`.
    fn judge_batch(
        &self,
        programs: &[&CandidateProgram],
        on_judgement: &mut dyn FnMut(usize, Judgement) -> Result<()>,
    ) -> Result<()> {
        programs.iter().enumerate().try_for_each(|(i, program)| on_judgement(i, self.judge(program)?))
    }

    /// Returns true if the tests run to their end with a genuine `assert` when the program cannot interfere with them.
    ///
    /// # Errors
    /// When the judge itself fails.
    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool>;
}
