//! One training run: data, packing, optimizer steps and checkpoints. It knows nothing of where the rows come from.
//!
//! Read in the order of the data: [`data`] reads rows, [`pack`] turns them into token sequences, [`feed`] puts those in
//! order; [`learner`] is one optimizer step, summed over micro-batches and ranks by [`summed`]; [`trainer`] is the run
//! around it.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod data;
pub mod feed;
pub mod learner;
pub mod metrics;
pub mod optimizer;
pub mod options;
pub mod overview;
pub mod pack;
pub mod plan;
pub mod ranks;
pub mod schedule;
pub mod summed;
pub mod trainer;
pub mod weights;
pub mod work;

pub use options::TrainOptions;
pub use trainer::{Event, Report, train};
