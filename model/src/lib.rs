//! Llama on the engine.
pub mod checkpoint;
pub mod config;
pub mod template;
pub mod tensor_file;
