//! Llama on the engine.
pub mod adapter;
mod change;
pub mod checkpoint;
pub mod config;
pub mod folder;
pub mod generate;
pub mod jsonl;
mod layer;
pub mod llama;
pub mod loading;
pub mod merge;
pub mod parallel;
pub mod part;
#[cfg(test)]
mod shared;
pub mod synthetic;
pub mod template;
pub mod tensor_file;
pub mod tensor_writer;
pub mod tokenizer;
