//! Generation: requests in, completions out, over a paged KV cache with continuous batching.
//!
//! A completion depends on its prompt, its sampling and its seed alone: every op is batch-invariant and every
//! random number is keyed by (seed, sample, position), so neither the batch nor the page size can change a bit. On a
//! card, steps that only decode are recorded as graphs and replayed, which changes none either.

mod cache;
mod schedule;
mod step;
mod stop;

pub use cache::Cache;
pub use schedule::{Limits, generate};

use codelsi_engine::{Error, Result};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 is none; applies to the tokens of the prompt and the answer.
    pub repetition_penalty: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// One prompt and how it is to be completed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids, `<s>` included where the model wants it.
    pub prompt: Vec<u32>,
    /// Completions wanted; they share the prompt's pages.
    pub n: usize,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// The completion ends before the first of these.
    pub stop: Vec<String>,
    /// False to go on past the end-of-text token.
    pub stop_at_eos: bool,
}

impl Request {
    /// A single greedy completion.
    pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Request {
            prompt,
            n: 1,
            max_tokens,
            sampling: Sampling::default(),
            stop: Vec::new(),
            stop_at_eos: true,
        }
    }

    fn check(&self, vocab: usize, positions: usize) -> Result<()> {
        let length = self.prompt.len() + self.max_tokens;
        if self.prompt.is_empty() {
            return Err(Error::new("the prompt has no token; begin it with <s>"));
        }
        if self.max_tokens == 0 {
            return Err(Error::new("no token was asked for; give --max-tokens 1 or more"));
        }
        if let Some(id) = self.prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::new(format!("prompt token {id} is outside the vocabulary of {vocab}")));
        }
        if length > positions + 1 {
            return Err(Error::new(format!(
                "{} prompt tokens and {} new ones exceed the model's {positions} positions; shorten the prompt or lower --max-tokens",
                self.prompt.len(),
                self.max_tokens
            )));
        }
        Ok(())
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The end-of-text token, or a stop string.
    Stop,
    /// `max_tokens` were made.
    Length,
}

impl Finish {
    /// The name that OpenAI-compatible clients know.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Cut before the stop string.
    pub text: String,
    /// Every token made, the end-of-text token and those of a stop string included.
    pub token_ids: Vec<u32>,
    /// log p of each token under the model's own distribution.
    pub logprobs: Vec<f32>,
    pub finish: Finish,
}
