//! One training run: data, packing, optimizer steps and checkpoints. It does not depend on how the rows were made.
//!
//! Read in the order of the data: [`data`] reads rows, [`pack`] turns them into token sequences, [`data_loader`]
//! puts those in order; [`train_step`] is one optimizer step, whose gradients [`grad_reduce`] sums over
//! micro-batches and ranks; [`trainer`] is the run around it.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod collapse;
pub mod data;
pub mod data_loader;
pub mod early_stopping;
pub mod export;
pub mod file_counts;
pub mod flops;
pub mod grad_reduce;
pub mod metrics;
pub mod optimizer;
pub mod options;
pub mod pack;
pub mod plan;
pub mod rank_check;
pub mod recipe;
pub mod row_counts;
pub mod row_losses;
mod run_rows;
pub mod run_summary;
pub mod schedule;
pub mod train_step;
pub mod trainer;

pub use options::TrainOptions;
pub use trainer::{TrainEvent, TrainReport, train};
