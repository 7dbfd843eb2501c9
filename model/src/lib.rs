//! Llama on the engine.
pub mod adapter;
pub mod checkpoint;
pub mod config;
pub mod generate;
pub mod llama;
#[cfg(test)]
mod shared;
pub mod template;
pub mod tensor_file;
pub mod tensor_writer;
pub mod tokenizer;
