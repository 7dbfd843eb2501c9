//! The paper's experiments: recipes, stages, the pipeline in one page, ablations, and the models they ask.
//!
//! From the ground up: [`placement`] says where models run and [`local`], [`endpoint`] and [`teacher`] are models that
//! answer; [`curation`], [`training`] and [`evaluation`] are one step each, with progress on stderr; [`stages`] are the steps
//! of one run, which [`pipeline`] and [`ablation`] put in order. Options are plain structs; flags are the command line's.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod curation;
pub mod dry_run;
pub mod endpoint;
pub mod evaluation;
pub mod generation;
pub mod judging;
pub mod languages;
pub mod loaded;
pub mod local;
pub mod merging;
pub mod output;
pub mod pipeline;
pub mod placement;
pub mod private;
pub mod protocol;
pub mod recipe;
pub mod report;
pub mod server;
pub mod sources;
pub mod stages;
pub mod table;
pub mod teacher;
pub mod throughput;
pub mod training;
