//! One file per command: its flags, and `run`.

pub mod ablate;
pub mod bench;
pub mod bench_serve;
pub mod chat;
pub mod curate;
pub mod evaluate;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod judge;
pub mod merge;
pub mod mkmodel;
pub mod pipeline;
pub mod plan;
pub mod problems;
pub mod report;
pub mod serve;
pub mod tokenize;
pub mod train;
