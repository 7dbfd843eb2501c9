//! Ollama's API, as editors look for it: the list of models, and answers as JSON Lines.

pub mod generate;
pub mod models;
