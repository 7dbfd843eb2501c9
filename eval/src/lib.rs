//! Evaluation: problems, judges in a sandbox, statistics, the protocol of a run, reports.
//!
//! A binary that judges must call [`sandbox::child_entry`] first thing in `main`: judged programs run in re-executions
//! of it. Models reach this crate through [`sampling::Completer`] only.

pub mod evaluate;
pub mod extract;
pub mod held_out;
mod jsonl;
pub mod judge;
pub mod problem;
pub mod protocol;
pub mod report;
pub mod sampling;
pub mod sandbox;
pub mod signatures;
pub mod statistics;
pub mod verbatim;
