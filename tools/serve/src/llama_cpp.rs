//! llama.cpp's server, as its editors' plugins speak to it: `/completion` and `/infill`.

use crate::app::App;
use crate::call::Call;
use crate::error::{ApiError, ErrorForm};
use crate::fields::{Fields, Neutral, mistyped};
use crate::generation::{Generation, MaxTokens, Parameters, Sample, Tally};
use crate::infill::{self, EncodedPrompt};
use crate::models::ServedModel;
use crate::openai::json_response;
use crate::sampling;
use crate::stream::{self, EVENT_STREAM, Encoder, Lines};
use axum::extract::State;
use axum::response::Response;
use codelsi_model::generate::Event;
use codelsi_model::generate::FinishReason;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Fields that change nothing here: every prefix is cached, slots are the scheduler's, and the samplers run in one order.
const ACCEPTED: [&str; 6] = ["cache_prompt", "id_slot", "samplers", "n_indent", "t_max_prompt_ms", "n_keep"];
/// Most chunks of other files before an infilling prompt.
const MAX_EXTRAS: usize = 1024;

/// Text of another file of the editor.
struct Extra {
    filename: String,
    text: String,
}

/// Options of `/completion` and `/infill`.
struct Options {
    parameters: Parameters,
    stream: bool,
    /// Keys that the response is to have alone, with slashes for keys of keys.
    response_fields: Vec<String>,
}

/// `POST /completion`.
pub async fn completion(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = app.models.find(fields.text("model")?.as_deref())?;
    let prompt = fields.value("prompt").ok_or_else(|| ApiError::field("prompt", "is missing"))?;
    let options = Options::read(&mut fields)?;
    fields.ignore_rest();
    let prompt = app.compute(move |app| encode(app, &prompt)).await?;
    answer(&app, &model, prompt, options, client, false).await
}

/// `POST /infill`.
pub async fn infill(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let Call { mut fields, client } = call;
    let model = app.models.find(fields.text("model")?.as_deref())?;
    let mut text = |name| Ok::<_, ApiError>(fields.text(name)?.unwrap_or_default());
    let [prefix, suffix, begun] = [text("input_prefix")?, text("input_suffix")?, text("prompt")?];
    let extras = read_extras(fields.list("input_extra")?)?;
    let options = Options::read(&mut fields)?;
    fields.ignore_rest();
    app.check_text(prefix.len() + suffix.len() + begun.len())?;
    let (prompt, truncated) =
        app.compute(move |app| encode_infill(app, &extras, &prefix, &suffix, &begun)).await?;
    answer(&app, &model, prompt, options, client, truncated).await
}

impl Options {
    fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        ACCEPTED.iter().for_each(|name| drop(fields.value(name)));
        fields.refuse(&[
            ("grammar", Neutral::Empty),
            ("json_schema", Neutral::Empty),
            ("logit_bias", Neutral::Empty),
            ("mirostat", Neutral::Number(0.0)),
            ("ignore_eos", Neutral::Empty),
        ])?;
        let max_tokens = match fields.integer("n_predict", -2, i64::from(u32::MAX))? {
            None | Some(-2 | -1) => MaxTokens::Context,
            Some(tokens) => MaxTokens::AtMost(tokens as usize),
        };
        let milliseconds = fields.integer("t_max_predict_ms", 0, i64::from(u32::MAX))?;
        let parameters = Parameters {
            time_limit: milliseconds.filter(|&ms| ms > 0).map(|ms| Duration::from_millis(ms as u64)),
            ..Parameters::new(sampling::LLAMA_CPP.read(fields)?, max_tokens, fields.stops()?)
        };
        let keys = fields.list("response_fields")?.into_iter().map(|key| match key {
            Value::String(key) => Ok(key),
            other => Err(mistyped("response_fields", "a list of texts", &other)),
        });
        Ok(Options {
            parameters,
            response_fields: keys.collect::<Result<_, _>>()?,
            stream: fields.flag("stream")?.unwrap_or(false),
        })
    }
}

fn read_extras(list: Vec<Value>) -> Result<Vec<Extra>, ApiError> {
    if list.len() > MAX_EXTRAS {
        let message = format!("holds {} texts; {MAX_EXTRAS} are allowed", list.len());
        return Err(ApiError::field("input_extra", message));
    }
    let read = |mut extra: Value| match (extra["text"].is_string(), extra.is_object()) {
        (true, true) => {
            let mut take = |name| match extra.get_mut(name).map(Value::take) {
                Some(Value::String(text)) => text,
                _ => String::new(),
            };
            Ok(Extra { filename: take("filename"), text: take("text") })
        }
        _ => Err(ApiError::field("input_extra", "holds something without a `text`")),
    };
    list.into_iter().map(read).collect()
}

/// Encodes a text, or token ids.
fn encode(app: &App, prompt: &Value) -> Result<EncodedPrompt, ApiError> {
    let plain = |tokens| EncodedPrompt { tokens, stop_token_ids: Vec::new() };
    match prompt {
        Value::String(text) => {
            app.check_text(text.len())?;
            Ok(plain(app.tokenizer().encode(text, true)?))
        }
        Value::Array(ids) => {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids: Option<Vec<u32>> = ids.iter().map(id).collect();
            ids.map(plain).ok_or_else(|| ApiError::field("prompt", "holds something that is no token id"))
        }
        other => Err(mistyped("prompt", "a text or token ids", other)),
    }
}

/// Encodes an infilling prompt, with as many of the newest texts of other files as leave half of the positions free.
/// Returns also whether some were left out.
fn encode_infill(
    app: &App,
    extras: &[Extra],
    prefix: &str,
    suffix: &str,
    begun: &str,
) -> Result<(EncodedPrompt, bool), ApiError> {
    let tokenizer = app.tokenizer();
    let encode = |count: usize| {
        let newest = &extras[extras.len() - count..];
        let before: String = newest.iter().map(Extra::written).chain([prefix.to_owned()]).collect();
        app.check_text(before.len())?;
        infill::encode(tokenizer, &before, suffix, begun)
    };
    let (mut prompt, mut count) = (encode(0)?, 0);
    // All of them first, then by halves: as many as fit are found in few encodings.
    let (mut next, mut too_many) = (extras.len(), extras.len() + 1);
    while count < next && next < too_many {
        match encode(next) {
            Ok(longer) if longer.tokens.len() <= app.max_model_len / 2 => (prompt, count) = (longer, next),
            _ => too_many = next,
        }
        next = count.midpoint(too_many);
    }
    Ok((prompt, count < extras.len()))
}

impl Extra {
    /// The text as it stands in a prompt, after its file's name as a comment.
    fn written(&self) -> String {
        let text = self.text.trim_end_matches('\n');
        // The name is one line, whatever it holds.
        let name: String = self.filename.chars().filter(|c| !c.is_control()).collect();
        let marker = match name.rsplit_once('.').map(|(_, end)| end) {
            Some("py" | "rb" | "sh" | "toml" | "yaml" | "yml" | "r" | "pl") => "#",
            _ => "//",
        };
        let header = if name.is_empty() { String::new() } else { format!("{marker} {name}\n") };
        format!("{header}{text}\n\n")
    }
}

async fn answer(
    app: &Arc<App>,
    model: &ServedModel,
    prompt: EncodedPrompt,
    options: Options,
    client: u64,
    truncated: bool,
) -> Result<Response, ApiError> {
    let form = Form {
        model: model.id.clone(),
        end_tokens: app.end_tokens(&prompt.stop_token_ids),
        truncated,
        keys: options.response_fields,
        last_token: None,
    };
    let generation = Generation::start(app, model, vec![prompt], &options.parameters, client).await?;
    if options.stream {
        return Ok(stream::respond(generation, form));
    }
    let (Sample { text, tokens, reason }, tally) = generation.collect().await?.single();
    let form = Form { last_token: tokens.last().map(|token| token.id), ..form };
    let reason = reason.unwrap_or(FinishReason::Length);
    Ok(json_response(&form.selected(form.last(&text, reason, &tally))))
}

/// Fields that the objects of a response share.
struct Form {
    model: String,
    end_tokens: Vec<u32>,
    truncated: bool,
    keys: Vec<String>,
    last_token: Option<u32>,
}

impl Form {
    /// The object with the end of the text.
    fn last(&self, content: &str, reason: FinishReason, tally: &Tally) -> Value {
        let at_end_token = self.last_token.is_some_and(|id| self.end_tokens.contains(&id));
        let stop_type = match reason {
            FinishReason::Length => "limit",
            FinishReason::Stop if at_end_token => "eos",
            FinishReason::Stop => "word",
        };
        json!({
            "index": 0,
            "content": content,
            "stop": true,
            "stop_type": stop_type,
            "model": self.model,
            "tokens_predicted": tally.generated,
            "tokens_evaluated": tally.prompt_tokens(),
            "tokens_cached": tally.prompt_tokens() + tally.generated,
            "truncated": self.truncated,
            "timings": timings(tally),
        })
    }

    /// Keeps the keys that were asked for, under their full names.
    fn selected(&self, response: Value) -> Value {
        if self.keys.is_empty() {
            return response;
        }
        let find = |key: &String| {
            let value = response.pointer(&format!("/{}", key.trim_start_matches('/')))?;
            Some((key.clone(), value.clone()))
        };
        Value::Object(self.keys.iter().filter_map(find).collect::<Map<_, _>>())
    }
}

/// Counts and times, as llama.cpp names them.
fn timings(tally: &Tally) -> Value {
    let rate = |tokens: usize, time: Duration| {
        let (tokens, ms) = (tokens as f64, time.as_secs_f64() * 1e3);
        (ms, if tokens > 0.0 { ms / tokens } else { 0.0 }, if ms > 0.0 { tokens * 1e3 / ms } else { 0.0 })
    };
    let prompt_n = tally.prompt_tokens() - tally.cached;
    let (prompt_ms, prompt_per_token_ms, prompt_per_second) = rate(prompt_n, tally.prefill());
    let (predicted_ms, predicted_per_token_ms, predicted_per_second) = rate(tally.generated, tally.decode());
    json!({
        "cache_n": tally.cached,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_per_token_ms,
        "prompt_per_second": prompt_per_second,
        "predicted_n": tally.generated,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_per_token_ms,
        "predicted_per_second": predicted_per_second,
    })
}

impl Encoder for Form {
    fn content_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn event(&mut self, _: usize, event: Event, tally: &Tally, out: &mut Lines) {
        match event {
            Event::Prefilled { .. } => {}
            Event::Token { token, text, .. } => {
                self.last_token = Some(token.id);
                if !text.is_empty() {
                    let piece = json!({
                        "index": 0,
                        "content": text,
                        "stop": false,
                        "tokens_predicted": tally.generated,
                        "tokens_evaluated": tally.prompt_tokens(),
                    });
                    out.event(&self.selected(piece));
                }
            }
            Event::Finished { text, reason, .. } => {
                out.event(&self.selected(self.last(&text, reason, tally)));
            }
        }
    }

    fn end(&mut self, _: &Tally, _: &mut Lines) {}

    fn failed(&mut self, message: &str, out: &mut Lines) {
        out.event(&ApiError::internal(message).body(ErrorForm::OpenAi));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_another_file_stands_under_its_name() {
        let extra = |filename: &str| Extra { filename: filename.into(), text: "x\n\n".into() };
        assert_eq!(extra("a/zero.ts").written(), "// a/zero.ts\nx\n\n");
        assert_eq!(extra("zero.py").written(), "# zero.py\nx\n\n");
        assert_eq!(extra("a\nb").written(), "// ab\nx\n\n");
        assert_eq!(extra("").written(), "x\n\n");
    }
}
