//! The paper's experiments: recipes, stages, the pipeline in one page, and ablations.
//!
//! From the bottom up: [`placement`] is the device and ranks of a model; [`local`], [`endpoint`] and [`teacher`] are
//! models that generate; [`curation`], [`training`] and [`evaluation`] are one step each, with progress on stderr;
//! [`stages`] are the steps of one run, which [`pipeline`] and [`ablation`] put in order. Options are plain structs;
//! the command line parses flags into them.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod api_client;
mod canaries;
pub mod chat;
pub mod command_line;
pub mod curation;
pub mod dry_run;
pub mod endpoint;
pub mod environment;
pub mod evaluation;
pub mod generation;
pub mod inference_model;
pub mod infilling;
pub mod judging;
pub mod languages;
pub mod local;
pub mod merging;
pub mod output;
pub mod pipeline;
pub mod placement;
pub mod private_problems;
pub mod private_repository;
pub mod problems;
pub mod protocol;
pub mod recipe;
pub mod report;
mod retention;
pub mod seeds;
pub mod serving;
pub mod sources;
pub mod stages;
pub mod table;
pub mod teacher;
pub mod throughput;
pub mod tokenization;
pub mod training;
