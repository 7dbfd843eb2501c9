//! OpenAI's API: models, completions, chat completions.

pub mod chat;
pub mod completions;
mod logprobs;
pub mod models;
mod parameters;
mod usage;

pub use models::json_response;
pub use parameters::{Streaming, read_max_tokens};
