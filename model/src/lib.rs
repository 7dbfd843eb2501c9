//! Llama on the engine.
pub mod template;
