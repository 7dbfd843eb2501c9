//! Mistral's infilling: `/v1/fim/completions`. A prompt and a suffix in, the form of a chat completion out.

use crate::app::App;
use crate::call::Call;
use crate::error::ApiError;
use crate::generation::{MaxTokens, Parameters};
use crate::infill;
use crate::openai::{Streaming, chat, read_max_tokens};
use crate::sampling;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;

/// `POST /v1/fim/completions` and `POST /fim/completions`.
pub async fn fim_completions(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = app.models.find(fields.text("model")?.as_deref())?;
    let prefix = fields.text("prompt")?.ok_or_else(|| ApiError::field("prompt", "is missing"))?;
    let suffix = fields.text("suffix")?.unwrap_or_default();
    let streaming = Streaming { include_usage: true, ..Streaming::read(&mut fields)? };
    if let Some(seed) = fields.value("random_seed") {
        fields.set("seed", seed);
    }
    let max_tokens = read_max_tokens(&mut fields, &["max_tokens"], MaxTokens::Context)?;
    let sampling = sampling::INFILL.read(&mut fields)?;
    let parameters = Parameters::new(sampling, max_tokens, fields.stops()?);
    fields.ignore_rest();
    app.check_text(prefix.len() + suffix.len())?;
    let prompt = app.compute(move |app| infill::encode(app.tokenizer(), &prefix, &suffix, "")).await?;
    chat::answer(&app, &model, prompt, &parameters, client, streaming, false).await
}
