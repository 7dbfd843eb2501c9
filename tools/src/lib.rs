//! What the binaries are made of: the commands, the pipeline, the demo, and the check of reference outputs.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod commands;
pub mod completer;
pub mod demo;
pub mod dry_run;
pub mod endpoint;
pub mod kernelcheck;
pub mod languages;
pub mod launcher;
pub mod method_args;
pub mod model_args;
pub mod output;
pub mod parity;
pub mod pipeline;
pub mod place;
pub mod private;
pub mod ranks;
pub mod recipe;
pub mod server;
pub mod table;
pub mod teacher;
