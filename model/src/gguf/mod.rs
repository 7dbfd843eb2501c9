//! Models and adapters as GGUF files, which llama.cpp and Ollama read.
//!
//! [`export_model`] and [`export_adapter`] map this engine's tensors to llama.cpp's (`model.rs`, `adapter.rs`) and its
//! tokenizer to llama.cpp's (`vocabulary.rs`); `quantize.rs` stores values, `writer.rs` is the file's format, and
//! `modelfile.rs` is Ollama's description beside it.

mod adapter;
mod model;
mod modelfile;
mod quantize;
mod vocabulary;
mod writer;

pub use adapter::export_adapter;
pub use model::export_model;
pub use modelfile::{check_modelfile, write_adapter_modelfile, write_modelfile};
pub use quantize::TensorType;

/// Facts of a file that was written.
#[derive(Debug)]
pub struct Exported {
    /// The type of the matrices.
    pub tensor_type: TensorType,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
    /// Differences that the file's readers cannot be told to avoid, one line each.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests;
