//! Completions of a list of requests.

use super::engine::{AddError, Engine};
use super::events::{EngineOutputs, Event, Failure};
use super::request::{Completion, FinishReason, GenerationRequest};
use super::scheduler::SchedulerConfig;
use super::sequence::RequestId;
use crate::llama::Llama;
use crate::tokenizer::Tokenizer;
use codelsi_engine::{At, Device, Error, Result, interrupt};
use std::collections::HashMap;

/// Completes every request: element i of the result holds the `n` completions of `requests[i]`. After each step
/// `progress` gets the number of tokens that it generated. Without a tokenizer, completions have token ids only and
/// stop strings are ignored.
///
/// # Errors
/// When a request does not fit the model, the logits are not finite, or a signal wished that the process ends.
pub fn generate(
    device: &Device,
    model: &Llama,
    tokenizer: Option<&Tokenizer>,
    requests: &[GenerationRequest],
    limits: SchedulerConfig,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<Completion>>> {
    let is_token = |event: &&Event| matches!(event, Event::Token { .. });
    let mut count = |events: &[Event]| progress(events.iter().filter(is_token).count());
    generate_with_events(device, model, tokenizer, requests, limits, &mut count)
}

/// Completes every request as [`generate`] does. After each step `on_step` gets its events.
///
/// # Errors
/// As [`generate`].
pub fn generate_with_events(
    device: &Device,
    model: &Llama,
    tokenizer: Option<&Tokenizer>,
    requests: &[GenerationRequest],
    limits: SchedulerConfig,
    on_step: &mut dyn FnMut(&[Event]),
) -> Result<Vec<Vec<Completion>>> {
    for (i, request) in requests.iter().enumerate() {
        request.check(model.config().vocab, model.config().max_positions).at(format!("request {i}"))?;
        if request.max_tokens == 0 {
            return Err(Error::new("no token was asked for; give --max-tokens 1 or more"))
                .at(format!("request {i}"));
        }
    }
    let mut engine = Engine::for_requests(device, model, tokenizer, requests, limits)?;
    let mut ids: HashMap<RequestId, usize> = HashMap::new();
    let mut completions = Vec::with_capacity(requests.len());
    for (i, request) in requests.iter().enumerate() {
        ids.insert(engine.add(request.clone()).map_err(AddError::into_error).at(format!("request {i}"))?, i);
        completions.push(vec![Completion::default(); request.n]);
    }
    while engine.has_work() {
        interrupt::check("the completions in progress are not kept")?;
        let EngineOutputs { events, failures } = engine.step()?;
        on_step(&events);
        if let Some(Failure { request, error }) = failures.into_iter().next() {
            return Err(error).at(format!("request {}", ids[&request]));
        }
        for event in events {
            match event {
                Event::Prefilled { .. } => {}
                Event::Token { request, sample, token, text } => {
                    completions[ids[&request]][sample].push(token.id, token.logprob, &text);
                }
                Event::Finished { request, sample, reason, text } => {
                    let completion = &mut completions[ids[&request]][sample];
                    completion.text.push_str(&text);
                    completion.finish_reason = reason;
                }
            }
        }
    }
    Ok(completions)
}

impl Default for Completion {
    fn default() -> Self {
        Completion {
            text: String::new(),
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            finish_reason: FinishReason::Length,
        }
    }
}

impl Completion {
    fn push(&mut self, id: u32, logprob: f32, text: &str) {
        self.token_ids.push(id);
        self.logprobs.push(logprob);
        self.text.push_str(text);
    }
}
