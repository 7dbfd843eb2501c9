//! `/api/generate` and `/api/chat`: JSON Lines, unless told otherwise.

use crate::app::App;
use crate::call::Call;
use crate::chat::parse_messages;
use crate::error::{ApiError, ErrorForm};
use crate::fields::{Fields, Neutral};
use crate::generation::{Generation, MaxTokens, Parameters, Sample, Tally};
use crate::infill::{self, EncodedPrompt};
use crate::models::ServedModel;
use crate::openai::json_response;
use crate::sampling;
use crate::stream::{self, Encoder, Lines, NDJSON};
use axum::extract::State;
use axum::response::Response;
use chrono::{SecondsFormat, Utc};
use codelsi_model::generate::Event;
use codelsi_model::generate::FinishReason;
use codelsi_model::message::{Message, Role};
use serde_json::{Value, json};
use std::sync::Arc;

/// The two forms of an answer.
#[derive(Clone, Copy)]
enum Form {
    /// `response` holds the text.
    Generate,
    /// `message.content` holds the text.
    Chat,
}

/// A request's parameters, and whether its answer is streamed.
struct Options {
    parameters: Parameters,
    stream: bool,
    /// False to unload the model, as clients do; it stays.
    keep: bool,
}

/// `POST /api/generate`.
pub async fn generate(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = find_model(&app, &mut fields)?;
    let mut text = |name| Ok::<_, ApiError>(fields.text(name)?.unwrap_or_default());
    let [prompt, suffix, system] = [text("prompt")?, text("suffix")?, text("system")?];
    let raw = fields.flag("raw")?.unwrap_or(false);
    fields.refuse(&[("template", Neutral::Empty), ("context", Neutral::Empty)])?;
    let mut options = Options::read(&mut fields)?;
    fields.ignore_rest();
    if prompt.is_empty() && suffix.is_empty() {
        return Ok(loaded(&model, Form::Generate, options.keep));
    }
    app.check_text(prompt.len() + suffix.len() + system.len())?;
    let is_chat = suffix.is_empty() && !raw && app.chat.has_template();
    if is_chat {
        options.parameters.stop.extend_from_slice(app.chat.stop());
    }
    let encode = move |app: &App| match (is_chat, suffix.is_empty()) {
        (true, _) => app.chat.encode(app.tokenizer(), &conversation(system, prompt)),
        (_, false) => infill::encode(app.tokenizer(), &prompt, &suffix, ""),
        _ if raw => infill::encode_raw(app.tokenizer(), &prompt),
        _ => infill::encode_text(app.tokenizer(), &prompt_after(&system, &prompt)),
    };
    let prompt = app.compute(encode).await?;
    answer(&app, model, prompt, options, client, Form::Generate).await
}

/// `POST /api/chat`.
pub async fn chat(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = find_model(&app, &mut fields)?;
    let messages = parse_messages(fields.list("messages")?)?;
    let mut options = Options::read(&mut fields)?;
    fields.ignore_rest();
    if messages.is_empty() {
        return Ok(loaded(&model, Form::Chat, options.keep));
    }
    app.check_text(messages.iter().map(|message| message.content.len()).sum())?;
    options.parameters.stop.extend_from_slice(app.chat.stop());
    let prompt = app.compute(move |app| app.chat.encode(app.tokenizer(), &messages)).await?;
    answer(&app, model, prompt, options, client, Form::Chat).await
}

fn find_model(app: &App, fields: &mut Fields) -> Result<ServedModel, ApiError> {
    let name = fields.text("model")?.or(fields.text("name")?);
    app.models.find(Some(&name.ok_or_else(|| ApiError::field("model", "is missing"))?))
}

/// One question, after the system's message if there is one.
fn conversation(system: String, question: String) -> Vec<Message> {
    let system = Some(system).filter(|system| !system.is_empty());
    let system = system.map(|content| Message { role: Role::System, content });
    system.into_iter().chain([Message { role: Role::User, content: question }]).collect()
}

/// The prompt of a model without a chat template.
fn prompt_after(system: &str, prompt: &str) -> String {
    if system.is_empty() { prompt.to_owned() } else { format!("{system}\n\n{prompt}") }
}

impl Options {
    fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        fields.refuse(&[
            ("tools", Neutral::Empty),
            ("format", Neutral::Empty),
            ("images", Neutral::Empty),
            ("think", Neutral::Empty),
        ])?;
        let stream = fields.flag("stream")?.unwrap_or(true);
        let keep = fields.value("keep_alive").is_none_or(|time| !(time == 0 || time == "0" || time == "0s"));
        let mut options = fields.object("options")?;
        options.refuse(&[("mirostat", Neutral::Number(0.0))])?;
        let max_tokens = match options.integer("num_predict", -2, i64::from(u32::MAX))? {
            None | Some(-2 | -1) => MaxTokens::Context,
            Some(tokens) => MaxTokens::AtMost(tokens as usize),
        };
        let sampling = sampling::OLLAMA.read(&mut options)?;
        let parameters = Parameters::new(sampling, max_tokens, options.stops()?);
        options.ignore_rest();
        Ok(Options { parameters, stream, keep })
    }
}

/// The answer to a request without a prompt: the model is there.
fn loaded(model: &ServedModel, form: Form, keep: bool) -> Response {
    let mut answer = piece(&model.id, form, "");
    answer["done"] = true.into();
    answer["done_reason"] = if keep { "load" } else { "unload" }.into();
    json_response(&answer)
}

async fn answer(
    app: &Arc<App>,
    model: ServedModel,
    prompt: EncodedPrompt,
    options: Options,
    client: u64,
    form: Form,
) -> Result<Response, ApiError> {
    let generation = Generation::start(app, &model, vec![prompt], &options.parameters, client).await?;
    if options.stream {
        return Ok(stream::respond(generation, JsonLines { model: model.id, form, reason: None }));
    }
    let (Sample { text, reason, .. }, tally) = generation.collect().await?.single();
    Ok(json_response(&last(&model.id, form, &text, reason, &tally)))
}

/// An object with a piece of the text.
fn piece(model: &str, form: Form, text: &str) -> Value {
    let created_at = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    match form {
        Form::Generate => {
            json!({ "model": model, "created_at": created_at, "response": text, "done": false })
        }
        Form::Chat => json!({
            "model": model,
            "created_at": created_at,
            "message": { "role": "assistant", "content": text },
            "done": false,
        }),
    }
}

/// The last object: counts, and durations in nanoseconds.
fn last(model: &str, form: Form, text: &str, reason: Option<FinishReason>, tally: &Tally) -> Value {
    let mut last = piece(model, form, text);
    last["done"] = true.into();
    last["done_reason"] = reason.unwrap_or(FinishReason::Length).name().into();
    last["total_duration"] = nanoseconds(tally.total());
    last["load_duration"] = 0.into();
    last["prompt_eval_count"] = tally.prompt_tokens().into();
    last["prompt_eval_duration"] = nanoseconds(tally.prefill());
    last["eval_count"] = tally.generated.into();
    last["eval_duration"] = nanoseconds(tally.decode());
    last
}

fn nanoseconds(time: std::time::Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}

/// The encoder of a streamed answer.
struct JsonLines {
    model: String,
    form: Form,
    reason: Option<FinishReason>,
}

impl Encoder for JsonLines {
    fn content_type(&self) -> &'static str {
        NDJSON
    }

    fn event(&mut self, _: usize, event: Event, _: &Tally, out: &mut Lines) {
        let text = match event {
            Event::Prefilled { .. } => return,
            Event::Token { text, .. } => text,
            Event::Finished { text, reason, .. } => {
                self.reason = Some(reason);
                text
            }
        };
        if !text.is_empty() {
            out.line(&piece(&self.model, self.form, &text));
        }
    }

    fn end(&mut self, tally: &Tally, out: &mut Lines) {
        out.line(&last(&self.model, self.form, "", self.reason, tally));
    }

    fn failed(&mut self, message: &str, out: &mut Lines) {
        out.line(&ApiError::internal(message).body(ErrorForm::Ollama));
    }
}
