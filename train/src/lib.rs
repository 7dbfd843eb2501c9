//! From sources to a tuned model: curation, training data, packing, optimizer steps and checkpoints.
//!
//! Read in the order of the data: [`curate`] makes rows, [`data`] reads them, [`pack`] turns them into token
//! sequences, [`feed`] puts those in order; [`learner`] is one optimizer step, summed over micro-batches and ranks by
//! [`summed`]; [`trainer`] is the run around it.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod curate;
pub mod data;
pub mod feed;
pub mod jsonl;
pub mod learner;
pub mod metrics;
pub mod optimizer;
pub mod options;
pub mod overview;
pub mod pack;
pub mod plan;
pub mod ranks;
pub mod schedule;
pub mod specialize;
pub mod summed;
pub mod trainer;
pub mod weights;
pub mod work;

pub use options::TrainOptions;
pub use trainer::{Event, Report, train};
