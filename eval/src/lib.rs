//! Evaluation: problems, judges in a sandbox, statistics, the protocol of a run, reports.
//!
//! The first call of `main` in a binary that judges must be [`judge::child_entry`]: judged programs run in
//! re-executions of that binary (`examples/judge_completion.rs`). Models reach this crate through
//! [`sampling::Generator`] only.
//!
//! Pass@1 of a model from its sample counts, with its confidence interval:
//!
//! ```
//! use codelsi_eval::statistics::{pass_at_k, proportion_interval};
//!
//! // Four problems, 20 samples each; the number of samples that pass:
//! let passes = [20, 0, 5, 15];
//! let scores: Vec<f64> = passes.iter().map(|&correct| pass_at_k(20, correct, 1)).collect();
//! let pass_at_1 = proportion_interval(&scores, 20);
//! assert!((pass_at_1.value - 0.5).abs() < 1e-12);
//! assert!(pass_at_1.low < 0.5 && 0.5 < pass_at_1.high);
//! ```

mod deep_stack;
pub mod evaluate;
pub mod extract;
pub mod failure_modes;
pub mod held_out;
pub mod infilling;
mod jsonl;
pub mod judge;
pub mod multipl_e;
pub mod problem;
pub mod protocol;
pub mod report;
mod run_folder;
pub mod sampling;
pub mod sandbox;

pub mod statistics;
pub mod verbatim;
