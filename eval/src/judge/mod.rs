//! Judges: they decide by execution if a program solves its problem, by the rule of MultiPL-E.
//!
//! All judges share one rule (`diagnosis`), one sandbox and one guard: a program that counts as solved is run a
//! second time with its tests in a scope that it cannot reach (`doc/judges.md` says how far that goes in each language). If they do not run to their end (the program ended
//! the process before them, replaced `assert`, or replaced the tests), the verdict is kept, as MultiPL-E requires,
//! and flagged as an exploit. The guard detects programs that cheat the tests, not a program written to deceive
//! this guard.
//!
//! To add a judge, implement [`Judge`], and add a variant to [`JudgeKind`].

pub mod batch_compile;
mod completions;
mod diagnosis;
pub mod embedded;
mod guard;
mod judgement;
mod kind;
mod node;
mod program_folder;
mod source;
mod stripped_node;
pub mod toolchain;
mod tools;
pub mod tsc;
pub mod verdicts;

pub use judgement::{Judge, Judgement, Status, StatusCounts};
pub use kind::{JudgeKind, open_default};
pub use node::NodeJudge;

use crate::sandbox;

/// Turns this process into a stage of a sandbox, and does not return, if it was started as one; returns at once
/// otherwise. Must be the first call of `main` in a binary that judges.
pub fn child_entry() {
    sandbox::child_entry(&[embedded::ENTRY, stripped_node::ENTRY]);
}
