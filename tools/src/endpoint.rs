//! Models behind an OpenAI-compatible address, asked as our own are.

use codelsi_engine::{At, Error, Result};
use codelsi_eval::sampling::{Ask, Completer};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Questions under way at once.
const AT_ONCE: usize = 8;
/// How often one is asked again when the server is busy or out of reach.
const TRIES: u32 = 6;
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(60);

/// A model on a server.
pub struct Endpoint {
    agent: ureq::Agent,
    /// Without a slash at its end.
    address: String,
    model: String,
    key: Option<String>,
}

/// What a server said.
enum Answer {
    Choices(Vec<String>),
    /// To be asked again, after this time if it says so.
    Busy(String, Option<Duration>),
}

impl Endpoint {
    /// `model` behind `address`, as in `https://host/v1`. The key, if the server wants one, is in CODELSI_API_KEY or
    /// OPENAI_API_KEY.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str, model: &str) -> Result<Self> {
        if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
            return Err(Error::new(format!(
                "--endpoint `{address}` is no address; give one as https://host/v1"
            )));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(600)))
            .http_status_as_error(false)
            .build();
        let named = |name| std::env::var(name).ok().filter(|key| !key.is_empty());
        Ok(Endpoint {
            agent: config.into(),
            address: address.trim_end_matches('/').to_owned(),
            model: model.to_owned(),
            key: named("CODELSI_API_KEY").or_else(|| named("OPENAI_API_KEY")),
        })
    }

    /// Every sample of one question; a server that gives fewer at once is asked for the rest.
    fn samples(&self, ask: &Ask) -> Result<Vec<String>> {
        let mut samples = Vec::with_capacity(ask.n);
        while samples.len() < ask.n {
            let choices = self.patiently(ask, samples.len())?;
            if choices.is_empty() {
                return Err(Error::new("gave no choice"));
            }
            samples.extend(choices);
        }
        samples.truncate(ask.n);
        Ok(samples)
    }

    /// Asks until the server answers, with growing pauses.
    fn patiently(&self, ask: &Ask, have: usize) -> Result<Vec<String>> {
        let mut pause = Duration::from_secs(1);
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.once(ask, have)? {
                Answer::Choices(choices) => return Ok(choices),
                Answer::Busy(said, after) => {
                    why = said;
                    std::thread::sleep(after.unwrap_or(pause).min(LONGEST));
                    pause *= 2;
                }
            }
        }
        Err(Error::new(format!("no answer in {TRIES} tries: {why}; run the command again to go on")))
    }

    fn once(&self, ask: &Ask, have: usize) -> Result<Answer> {
        let path = if ask.message.is_some() { "chat/completions" } else { "completions" };
        let mut request = self.agent.post(format!("{}/{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send_json(self.body(ask, have)) {
            Ok(response) => response,
            Err(e) => return Ok(Answer::Busy(e.to_string(), None)),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(e) => return Ok(Answer::Busy(e.to_string(), None)),
        };
        match status {
            200 => choices(&text).map(Answer::Choices),
            429 | 500..600 => Ok(Answer::Busy(
                format!("{status}: {}", beginning(&text)),
                after.map(Duration::from_secs_f64),
            )),
            401 | 403 => Err(Error::new(format!("{status}: {}; set CODELSI_API_KEY", beginning(&text)))),
            404 if ask.message.is_none() => Err(Error::new(
                "404: it goes on from no text; use --prompt-format inst, for models that chat",
            )),
            _ => Err(Error::new(format!("{status}: {}", beginning(&text)))),
        }
    }

    fn body(&self, ask: &Ask, have: usize) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Value| body.insert(key.into(), value);
        put("model", json!(self.model));
        match &ask.message {
            Some(message) => put("messages", json!([{"role": "user", "content": message}])),
            None => put("prompt", json!(ask.prompt)),
        };
        put("n", json!(ask.n - have));
        put("max_tokens", json!(ask.max_tokens));
        put("temperature", json!(ask.temperature));
        put("top_p", json!(ask.top_p));
        // Samples that are asked for later are others; servers take 63 bits.
        put("seed", json!((ask.seed >> 2) + have as u64));
        if !ask.stop.is_empty() {
            put("stop", json!(ask.stop));
        }
        Value::Object(body)
    }
}

impl Completer for Endpoint {
    fn complete(&mut self, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(AT_ONCE).build();
        let pool = pool.map_err(|e| Error::new(e.to_string()))?;
        let this = &*self;
        let answers: Result<Vec<_>> = pool.install(|| asks.par_iter().map(|ask| this.samples(ask)).collect());
        let answers = answers.at(self.address.clone())?;
        // The server counts tokens, not we: one for each answer.
        tokens(answers.iter().map(Vec::len).sum());
        Ok(answers)
    }
}

/// The texts of a response.
fn choices(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::new(format!("its answer has no choices with a text: {}", beginning(text)));
    let response: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let choices = response["choices"].as_array().ok_or_else(wrong)?;
    let text = |choice: &Value| {
        let said = choice["message"]["content"].as_str().or(choice["text"].as_str());
        said.map(str::to_owned).ok_or_else(wrong)
    };
    choices.iter().map(text).collect()
}

/// The beginning of what a server said, in one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
