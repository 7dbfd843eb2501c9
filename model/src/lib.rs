//! The Llama decoder: checkpoints, tokenizer, adapters, layouts over ranks, training forward pass and paged generation.
//!
//! [`llama::Llama`] is the model. [`checkpoint`] reads its weights, [`adapter`] holds what fine-tuning adds to it,
//! [`parallel`] shares it among ranks, and [`generate`] serves it.

pub mod adapter;
mod bound_adapter;
pub mod checkpoint;
pub mod config;
pub mod generate;
mod layer;
pub mod llama;
pub mod merge;
mod output_folder;
pub mod parallel;
#[cfg(test)]
mod shared;
pub mod synthetic;
pub mod template;
pub mod tensor_writer;
pub mod tokenizer;
pub mod trainable;
