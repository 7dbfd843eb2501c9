//! The Llama decoder: checkpoints, tokenizer, adapters, layouts over ranks, training forward pass and paged generation.
//!
//! [`llama::Llama`] is the model. [`checkpoint`] reads its weights, [`adapter`] holds the tensors that fine-tuning
//! adds, [`parallel`] shares it among ranks, and [`generate`] serves it.
//!
//! ```no_run
#![doc = include_str!("../examples/generate.rs")]
//! ```

pub mod adapter;
mod adapter_stack;
mod bound_adapter;
pub mod chat_format;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod end_tokens;
pub mod generate;
pub mod gguf;
pub mod hub;
mod json_fields;
pub mod jsonl;
mod layer;
pub mod llama;
pub mod merge;
pub mod message;
pub mod output_folder;
pub mod parallel;
mod random_weights;
pub mod rope_scaling;
pub mod synthetic;
pub mod template;
pub mod tensor_writer;
pub mod tokenizer;
pub mod trainable;
