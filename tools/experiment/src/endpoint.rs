//! Models behind an OpenAI-compatible address, asked as our own are.

use crate::server::{Server, at_once};
use codelsi_engine::{At, Error, Result};
use codelsi_eval::sampling::{CompletionRequest, Generator};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// A model on a server.
pub struct Endpoint {
    server: Server,
    model: String,
}

impl Endpoint {
    /// `model` behind `address`, as in `https://host/v1`. The key, if the server wants one, is in CODELSI_API_KEY or
    /// OPENAI_API_KEY.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str, model: &str) -> Result<Self> {
        Ok(Endpoint { server: Server::new(address, None).at("--endpoint")?, model: model.to_owned() })
    }

    /// Every sample of one question; a server that gives fewer at once is asked for the rest.
    fn samples(&self, ask: &CompletionRequest) -> Result<Vec<String>> {
        let path = if ask.message.is_some() { "chat/completions" } else { "completions" };
        let mut samples = Vec::with_capacity(ask.n);
        while samples.len() < ask.n {
            let choices = self.server.choices(path, &self.body(ask, samples.len()));
            samples.extend(choices.map_err(|e| advised(e, path))?);
        }
        samples.truncate(ask.n);
        Ok(samples)
    }

    fn body(&self, ask: &CompletionRequest, have: usize) -> Value {
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

impl Generator for Endpoint {
    fn generate(
        &mut self,
        asks: &[CompletionRequest],
        tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        let this = &*self;
        let answers: Result<Vec<_>> = at_once(|| asks.par_iter().map(|ask| this.samples(ask)).collect())?;
        let answers = answers.at(self.server.address())?;
        // The server counts tokens, not we: one for each answer.
        tokens(answers.iter().map(Vec::len).sum());
        Ok(answers)
    }
}

/// A server without plain completion may chat.
fn advised(error: Error, path: &str) -> Error {
    match path == "completions" && error.to_string().starts_with("404") {
        true => error.advise("it goes on from no text; use --prompt-format inst, for models that chat"),
        false => error,
    }
}
