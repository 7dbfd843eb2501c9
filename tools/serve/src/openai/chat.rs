//! `/v1/chat/completions`, and the same answers for Mistral's infilling.

use super::logprobs::chat_logprob;
use super::models::json_response;
use super::parameters::{MAX_TOP_LOGPROBS, Streaming, read_max_tokens, read_n, refuse_unsupported};
use super::usage::{new_id, usage};
use crate::app::App;
use crate::call::Call;
use crate::chat::parse_messages;
use crate::error::{ApiError, ErrorForm};
use crate::fields::Fields;
use crate::generation::{Generation, MaxTokens, Outcome, Parameters, Sample, Tally};
use crate::infill::EncodedPrompt;
use crate::models::{ServedModel, now};
use crate::sampling;
use crate::stream::{self, EVENT_STREAM, Encoder, Lines};
use axum::extract::State;
use axum::response::Response;
use codelsi_model::generate::{Event, TokenLogprob};
use serde_json::{Value, json};
use std::sync::Arc;

/// Fields that all chunks of a response share.
struct Form {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
    include_usage: bool,
    /// Tokens that end a text, which are in no list of its tokens.
    end_tokens: Vec<u32>,
}

/// `POST /v1/chat/completions`.
pub async fn chat_completions(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = app.models.find(fields.text("model")?.as_deref())?;
    let messages = parse_messages(fields.list("messages")?)?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "holds no message"));
    }
    let streaming = Streaming::read(&mut fields)?;
    let (mut parameters, logprobs) = read_parameters(&mut fields)?;
    fields.ignore_rest();
    parameters.stop.extend_from_slice(app.chat.stop());
    app.check_text(messages.iter().map(|message| message.content.len()).sum())?;
    let prompt = app.compute(move |app| app.chat.encode(app.tokenizer(), &messages)).await?;
    answer(&app, &model, prompt, &parameters, client, streaming, logprobs).await
}

/// Generates and answers in the form of a chat completion.
///
/// # Errors
/// When the prompt does not fit, or the engine fails.
pub async fn answer(
    app: &Arc<App>,
    model: &ServedModel,
    prompt: EncodedPrompt,
    parameters: &Parameters,
    client: u64,
    streaming: Streaming,
    logprobs: bool,
) -> Result<Response, ApiError> {
    let form = Form {
        id: new_id("chatcmpl"),
        created: now(),
        model: model.id.clone(),
        logprobs,
        include_usage: streaming.include_usage,
        end_tokens: app.end_tokens(&prompt.stop_token_ids),
    };
    let generation = Generation::start(app, model, vec![prompt], parameters, client).await?;
    match streaming.stream {
        true => Ok(stream::respond(generation, Chunks { app: app.clone(), form })),
        false => Ok(json_response(&form.response(app, generation.collect().await?))),
    }
}

/// Returns the parameters, and whether log-probabilities are to be told.
fn read_parameters(fields: &mut Fields) -> Result<(Parameters, bool), ApiError> {
    let n = read_n(fields)?;
    refuse_unsupported(fields, n)?;
    let logprobs = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !logprobs {
        return Err(ApiError::field("top_logprobs", "needs `logprobs` to be true"));
    }
    let max_tokens = read_max_tokens(fields, &["max_tokens", "max_completion_tokens"], MaxTokens::Context)?;
    let parameters = Parameters {
        n,
        top_logprobs: top.map_or(0, |top| top as usize),
        ..Parameters::new(sampling::OPENAI.read(fields)?, max_tokens, fields.stops()?)
    };
    Ok((parameters, logprobs))
}

impl Form {
    fn response(&self, app: &App, outcome: Outcome) -> Value {
        let samples = outcome.prompts.into_iter().flat_map(|prompt| prompt.samples);
        let choices = samples.enumerate().map(|(index, sample)| self.choice(app, index, &sample)).collect();
        let mut response = self.envelope("chat.completion", choices);
        response["usage"] = usage(&outcome.tally);
        response
    }

    fn choice(&self, app: &App, index: usize, sample: &Sample) -> Value {
        let tokens = sample.tokens.iter().filter(|token| !self.end_tokens.contains(&token.id));
        json!({
            "index": index,
            "message": { "role": "assistant", "content": sample.text, "refusal": null },
            "logprobs": self.logprobs.then(|| logprobs(app, tokens)),
            "finish_reason": sample.reason.map(|reason| reason.name()),
        })
    }

    fn envelope(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The `logprobs` of a choice.
fn logprobs<'t>(app: &App, tokens: impl Iterator<Item = &'t TokenLogprob>) -> Value {
    let content: Vec<Value> = tokens.map(|token| chat_logprob(app.tokenizer(), token)).collect();
    json!({ "content": content, "refusal": null })
}

/// The encoder of streamed chat completions.
struct Chunks {
    app: Arc<App>,
    form: Form,
}

impl Chunks {
    fn write(&self, index: usize, delta: &Value, logprobs: &Value, reason: Option<&str>, out: &mut Lines) {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
        let mut chunk = self.form.envelope("chat.completion.chunk", vec![choice]);
        if self.form.include_usage {
            chunk["usage"] = Value::Null;
        }
        out.event(&chunk);
    }
}

impl Encoder for Chunks {
    fn content_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, _: usize, event: Event, tally: &Tally, out: &mut Lines) {
        match event {
            Event::Prefilled { .. } => {
                let delta = json!({ "role": "assistant", "content": "" });
                (0..tally.samples()).for_each(|index| self.write(index, &delta, &Value::Null, None, out));
            }
            Event::Token { sample, token, text, .. } => {
                let is_listed = self.form.logprobs && !self.form.end_tokens.contains(&token.id);
                let list = if is_listed { logprobs(&self.app, [&token].into_iter()) } else { Value::Null };
                if !(text.is_empty() && list.is_null()) {
                    self.write(sample, &json!({ "content": text }), &list, None, out);
                }
            }
            Event::Finished { sample, reason, text, .. } => {
                if !text.is_empty() {
                    self.write(sample, &json!({ "content": text }), &Value::Null, None, out);
                }
                self.write(sample, &json!({}), &Value::Null, Some(reason.name()), out);
            }
        }
    }

    fn end(&mut self, tally: &Tally, out: &mut Lines) {
        if self.form.include_usage {
            let mut last = self.form.envelope("chat.completion.chunk", Vec::new());
            last["usage"] = usage(tally);
            out.event(&last);
        }
        out.text("data: [DONE]\n\n");
    }

    fn failed(&mut self, message: &str, out: &mut Lines) {
        out.event(&ApiError::internal(message).body(ErrorForm::OpenAi));
    }
}
