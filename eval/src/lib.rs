//! Evaluation: problems, judges in a sandbox, statistics, the protocol of a run, reports.
//!
//! A binary that judges must call [`sandbox::child_entry`] first thing in `main`: judged programs run in re-executions
//! of it. Models reach this crate through [`evaluate::Completer`] only.

mod jsonl;
pub mod judge;
pub mod problem;
pub mod sandbox;
