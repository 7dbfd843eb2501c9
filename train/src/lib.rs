//! From sources to a tuned model: curation, training data, packing, schedule, steps and checkpoints.
//!
//! Read in the order of the data: [`curate`] makes rows, [`data`] reads them, [`pack`] turns them into
//! token sequences, [`schedule`] says how fast to learn from them.

#![forbid(unsafe_code)]

pub mod curate;
pub mod data;
pub mod jsonl;
pub mod metrics;
pub mod pack;
pub mod schedule;
