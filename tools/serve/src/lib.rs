//! The HTTP server: a model and its adapters behind the APIs that editors speak. OpenAI's and vLLM's, llama.cpp's, Mistral's
//! infilling and Ollama's.
//!
//! One thread owns the engine (`engine_thread`); handlers turn a body into a `generation::Generation`, whose events are
//! collected or streamed (`stream`) in the form of their API. `guard` stands before all routes. The runtime and the
//! sockets live in this crate alone.

#![forbid(unsafe_code)]

mod adapters;
mod app;
mod call;
mod chat;
mod connection;
mod drain;
mod engine_thread;
mod error;
mod fields;
mod generation;
mod guard;
mod health;
mod infill;
mod llama_cpp;
mod log;
mod metrics;
mod mistral;
mod models;
mod ollama;
mod openai;
mod options;
mod page;
mod paths;
mod router;
mod sampling;
mod server;
mod signals;
mod stream;
mod tokens;

pub use drain::Drain;
pub use log::{LogLevel, start_log};
pub use options::{Access, KvSize, Limits, ServeOptions};
pub use server::Server;
