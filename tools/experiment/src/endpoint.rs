//! Models behind an OpenAI-compatible server, as generators for evaluation.

use crate::api_client::{ApiClient, in_request_pool};
use codelsi_engine::{At, Error, Result};
use codelsi_eval::sampling::{CompletionRequest, Generator};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// A model on a server.
pub struct Endpoint {
    client: ApiClient,
    model: String,
}

impl Endpoint {
    /// Makes a client of `model` behind `address`, as in `https://host/v1`. The API key, if the server requires one,
    /// comes from CODELSI_API_KEY or OPENAI_API_KEY.
    ///
    /// # Errors
    /// When the address is not an http(s) address.
    pub fn new(address: &str, model: &str) -> Result<Self> {
        Ok(Endpoint { client: ApiClient::new(address, None).at("--endpoint")?, model: model.to_owned() })
    }

    /// Returns all samples of one request; a server that returns fewer per response is asked again for the rest.
    fn samples(&self, request: &CompletionRequest) -> Result<Vec<String>> {
        let path = if request.message.is_some() { "chat/completions" } else { "completions" };
        let mut samples = Vec::with_capacity(request.n);
        while samples.len() < request.n {
            let choices = self.client.choices(path, &self.body(request, samples.len()));
            samples.extend(choices.map_err(|e| advise_chat_format(e, path))?);
        }
        samples.truncate(request.n);
        Ok(samples)
    }

    fn body(&self, request: &CompletionRequest, received: usize) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Value| body.insert(key.into(), value);
        put("model", json!(self.model));
        match &request.message {
            Some(message) => put("messages", json!([{"role": "user", "content": message}])),
            None => put("prompt", json!(request.prompt)),
        };
        if let Some(suffix) = &request.suffix {
            put("suffix", json!(suffix));
        }
        put("n", json!(request.n - received));
        put("max_tokens", json!(request.max_tokens));
        put("temperature", json!(request.temperature));
        put("top_p", json!(request.top_p));
        // Later requests need other samples, so another seed; servers accept 63 bits.
        put("seed", json!((request.seed >> 2) + received as u64));
        if !request.stop.is_empty() {
            put("stop", json!(request.stop));
        }
        Value::Object(body)
    }
}

impl Generator for Endpoint {
    fn generate(
        &mut self,
        requests: &[CompletionRequest],
        tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        let this = &*self;
        let answers: Result<Vec<_>> =
            in_request_pool(|| requests.par_iter().map(|request| this.samples(request)).collect())?;
        let answers = answers.at(self.client.address())?;
        // The tokens of an answer are not known here: each answer counts as one.
        tokens(answers.iter().map(Vec::len).sum());
        Ok(answers)
    }
}

/// Advises a chat format if the server has no plain completion endpoint.
fn advise_chat_format(error: Error, path: &str) -> Error {
    match path == "completions" && error.to_string().starts_with("404") {
        true => error.advise("it has no text completion endpoint; use --prompt-format inst, for chat models"),
        false => error,
    }
}
