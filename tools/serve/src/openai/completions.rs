//! `/v1/completions`.

use super::logprobs::CompletionLogprobs;
use super::models::json_response;
use super::parameters::{MAX_TOP_LOGPROBS, Streaming, read_max_tokens, read_n, refuse_unsupported};
use super::usage::{new_id, usage};
use crate::app::App;
use crate::call::Call;
use crate::error::{ApiError, ErrorForm};
use crate::fields::{Fields, mistyped};
use crate::generation::{Generation, MaxTokens, Outcome, Parameters, Tally};
use crate::infill::{self, EncodedPrompt};
use crate::models::now;
use crate::sampling;
use crate::stream::{self, EVENT_STREAM, Encoder, Lines};
use axum::extract::State;
use axum::response::Response;
use codelsi_model::generate::{Event, TokenLogprob};
use serde_json::{Value, json};
use std::sync::Arc;

/// Tokens of an answer, unless told otherwise.
const DEFAULT_MAX_TOKENS: usize = 16;
/// Most prompts of a request.
const MAX_PROMPTS: usize = 512;

/// A prompt as it was sent.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Fields that all choices of a response share.
#[derive(Clone)]
struct Form {
    id: String,
    created: u64,
    model: String,
    n: usize,
    /// The prompts' texts, where they are to be repeated.
    echo: Option<Vec<String>>,
    /// The prompts' tokens, where they are to be repeated with log-probabilities.
    echo_ids: Option<Vec<Vec<u32>>>,
    logprobs: bool,
    include_usage: bool,
    /// Tokens that end a text, which are in no list of its tokens.
    end_tokens: Vec<u32>,
}

/// `POST /v1/completions`.
pub async fn completions(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = app.models.find(fields.text("model")?.as_deref())?;
    let prompts = read_prompts(&mut fields)?;
    let suffix = fields.text("suffix")?.filter(|suffix| !suffix.is_empty());
    let streaming = Streaming::read(&mut fields)?;
    let (parameters, logprobs, echo) = read_parameters(&mut fields)?;
    fields.ignore_rest();
    let (texts, encoded) = app.compute(move |app| encode(app, prompts, suffix.as_deref())).await?;
    // All prompts of a request have the same kind, and so the same end.
    let stop_token_ids =
        encoded.iter().flat_map(|prompt| &prompt.stop_token_ids).copied().collect::<Vec<_>>();
    let form = Form {
        id: new_id("cmpl"),
        created: now(),
        model: model.id.clone(),
        n: parameters.n,
        echo: echo.then_some(texts),
        echo_ids: (echo && logprobs).then(|| encoded.iter().map(|prompt| prompt.tokens.clone()).collect()),
        logprobs,
        include_usage: streaming.include_usage,
        end_tokens: app.end_tokens(&stop_token_ids),
    };
    let generation = Generation::start(&app, &model, encoded, &parameters, client).await?;
    if streaming.stream {
        let samples = vec![Offsets::default(); generation.tally().prompts.len() * form.n];
        return Ok(stream::respond(generation, Chunks { app, form, samples }));
    }
    Ok(json_response(&form.response(&app, generation.collect().await?)))
}

/// Returns the parameters, and whether log-probabilities and the prompt are to be told.
fn read_parameters(fields: &mut Fields) -> Result<(Parameters, bool, bool), ApiError> {
    let n = read_n(fields)?;
    refuse_unsupported(fields, n)?;
    let logprobs = fields.integer("logprobs", 0, MAX_TOP_LOGPROBS)?;
    let echo = fields.flag("echo")?.unwrap_or(false);
    let default = MaxTokens::AtMost(DEFAULT_MAX_TOKENS);
    let max_tokens = read_max_tokens(fields, &["max_tokens"], default)?;
    let sampling = sampling::OPENAI.read(fields)?;
    let parameters = Parameters {
        n,
        top_logprobs: logprobs.map_or(0, |top| top as usize),
        prompt_logprobs: echo && logprobs.is_some(),
        ..Parameters::new(sampling, max_tokens, fields.stops()?)
    };
    Ok((parameters, logprobs.is_some(), echo))
}

/// Reads one prompt or several: text, a list of texts, token ids, or a list of lists of them.
fn read_prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    let wanted = "a text, a list of texts, token ids or a list of lists of them";
    let value = fields.value("prompt").ok_or_else(|| ApiError::field("prompt", "is missing"))?;
    let prompts = match value {
        Value::String(text) => vec![Prompt::Text(text)],
        Value::Array(list) if list.iter().all(Value::is_number) => vec![Prompt::Ids(token_ids(&list)?)],
        Value::Array(list) => list
            .into_iter()
            .map(|prompt| match prompt {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(ids) => Ok(Prompt::Ids(token_ids(&ids)?)),
                other => Err(mistyped("prompt", wanted, &other)),
            })
            .collect::<Result<_, _>>()?,
        other => return Err(mistyped("prompt", wanted, &other)),
    };
    if prompts.len() > MAX_PROMPTS {
        let message = format!("holds {} prompts; {MAX_PROMPTS} are allowed", prompts.len());
        return Err(ApiError::field("prompt", message));
    }
    Ok(prompts)
}

fn token_ids(list: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = list.iter().map(id).collect();
    match ids {
        Some(ids) if !ids.is_empty() => Ok(ids),
        Some(_) => Err(ApiError::field("prompt", "holds no token")),
        None => Err(ApiError::field("prompt", "holds something that is no token id")),
    }
}

/// Returns the prompts' texts and tokens.
fn encode(
    app: &App,
    prompts: Vec<Prompt>,
    suffix: Option<&str>,
) -> Result<(Vec<String>, Vec<EncodedPrompt>), ApiError> {
    let tokenizer = app.tokenizer();
    let encode = |prompt: Prompt| match (prompt, suffix) {
        (Prompt::Text(text), None) => {
            app.check_text(text.len())?;
            let encoded = infill::encode_raw(tokenizer, &text)?;
            Ok((text, encoded))
        }
        (Prompt::Text(text), Some(suffix)) => {
            app.check_text(text.len() + suffix.len())?;
            let encoded = infill::encode(tokenizer, &text, suffix, "")?;
            Ok((text, encoded))
        }
        (Prompt::Ids(_), Some(_)) => {
            Err(ApiError::field("suffix", "goes with a prompt that is a text, not with token ids"))
        }
        (Prompt::Ids(tokens), None) => {
            Ok((tokenizer.decode(&tokens), EncodedPrompt { tokens, stop_token_ids: Vec::new() }))
        }
    };
    let encoded: Result<Vec<_>, ApiError> = prompts.into_iter().map(encode).collect();
    Ok(encoded?.into_iter().unzip())
}

impl Form {
    /// The response with all choices.
    fn response(&self, app: &App, outcome: Outcome) -> Value {
        let mut choices = Vec::new();
        for (i, prompt) in outcome.prompts.into_iter().enumerate() {
            for (sample, finished) in prompt.samples.into_iter().enumerate() {
                let mut offset = 0;
                let mut logprobs = self.echoed_logprobs(app, i, &prompt.logprobs, &mut offset);
                for token in finished.tokens.iter().filter(|token| !self.end_tokens.contains(&token.id)) {
                    logprobs.push(app.tokenizer(), token, &mut offset);
                }
                let text = self.echo.as_ref().map_or(String::new(), |echo| echo[i].clone()) + &finished.text;
                choices.push(json!({
                    "index": i * self.n + sample,
                    "text": text,
                    "logprobs": self.logprobs.then(|| logprobs.into_json()),
                    "finish_reason": finished.reason.map(|reason| reason.name()),
                }));
            }
        }
        let mut response = self.envelope(choices);
        response["usage"] = usage(&outcome.tally);
        response
    }

    fn envelope(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// Lists of the prompt's tokens, if it is to be repeated.
    fn echoed_logprobs(
        &self,
        app: &App,
        prompt: usize,
        logprobs: &[Option<TokenLogprob>],
        offset: &mut usize,
    ) -> CompletionLogprobs {
        let mut lists = CompletionLogprobs::default();
        for (i, &id) in self.echo_ids.iter().flat_map(|ids| &ids[prompt]).enumerate() {
            match logprobs.get(i) {
                Some(Some(token)) => lists.push(app.tokenizer(), token, offset),
                _ => lists.push_unknown(app.tokenizer(), id, offset),
            }
        }
        lists
    }
}

/// Characters of a sample that were written, for the offsets of its tokens.
#[derive(Clone, Copy, Default)]
struct Offsets {
    characters: usize,
}

/// The encoder of streamed completions.
struct Chunks {
    app: Arc<App>,
    form: Form,
    samples: Vec<Offsets>,
}

impl Chunks {
    fn write(&self, index: usize, text: &str, logprobs: Value, reason: Option<&str>, out: &mut Lines) {
        let mut chunk = self.form.envelope(vec![json!({
            "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason,
        })]);
        if self.form.include_usage {
            chunk["usage"] = Value::Null;
        }
        out.event(&chunk);
    }

    /// Writes the prompt, if it is to be repeated.
    fn echo(&mut self, prompt: usize, logprobs: &[Option<TokenLogprob>], out: &mut Lines) {
        let Some(text) = self.form.echo.as_ref().map(|echo| echo[prompt].clone()) else { return };
        for index in prompt * self.form.n..(prompt + 1) * self.form.n {
            let mut offset = 0;
            let lists = self.form.echoed_logprobs(&self.app, prompt, logprobs, &mut offset);
            self.samples[index].characters = offset;
            let lists = if self.form.logprobs { lists.into_json() } else { Value::Null };
            self.write(index, &text, lists, None, out);
        }
    }
}

impl Encoder for Chunks {
    fn content_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, prompt: usize, event: Event, _: &Tally, out: &mut Lines) {
        match event {
            Event::Prefilled { prompt: logprobs, .. } => self.echo(prompt, &logprobs, out),
            Event::Token { sample, token, text, .. } => {
                let index = prompt * self.form.n + sample;
                let mut lists = Value::Null;
                if self.form.logprobs && !self.form.end_tokens.contains(&token.id) {
                    let mut one = CompletionLogprobs::default();
                    one.push(self.app.tokenizer(), &token, &mut self.samples[index].characters);
                    lists = one.into_json();
                }
                if !(text.is_empty() && lists.is_null()) {
                    self.write(index, &text, lists, None, out);
                }
            }
            Event::Finished { sample, reason, text, .. } => {
                let index = prompt * self.form.n + sample;
                self.write(index, &text, Value::Null, Some(reason.name()), out);
            }
        }
    }

    fn end(&mut self, tally: &Tally, out: &mut Lines) {
        if self.form.include_usage {
            let mut last = self.form.envelope(Vec::new());
            last["usage"] = usage(tally);
            out.event(&last);
        }
        out.text("data: [DONE]\n\n");
    }

    fn failed(&mut self, message: &str, out: &mut Lines) {
        out.event(&ApiError::internal(message).body(ErrorForm::OpenAi));
    }
}
