//! Requests and their completions.

use crate::adapter_stack::AdapterId;
use codelsi_engine::{Error, Result};

/// Parameters by which tokens are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0: greedy.
    pub temperature: f32,
    /// Number of most probable tokens to keep; 0: all.
    pub top_k: usize,
    /// Cumulative probability to keep; 1: all.
    pub top_p: f32,
    /// Least probability to keep, relative to the most probable token's; 0: all.
    pub min_p: f32,
    /// Divides positive logits of the prompt's and the completion's tokens and multiplies negative ones; 1: off.
    pub repetition_penalty: f32,
    /// Taken from the logit of a token of the completion once for each time that it was generated; 0: off.
    pub frequency_penalty: f32,
    /// Taken from the logits of the completion's tokens; 0: off.
    pub presence_penalty: f32,
    /// Seed of the random numbers: an equal seed gives equal text, in any batch.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// One prompt, and how to complete it.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// Token ids, including `<s>` where the model expects it.
    pub prompt: Vec<u32>,
    /// Number of completions; they share the prompt's pages of the KV cache.
    pub n: usize,
    /// Upper limit of a completion's tokens.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    /// Stop strings: a completion ends before the first of them.
    pub stop: Vec<String>,
    /// Tokens that end a completion, beside those that end a text.
    pub stop_token_ids: Vec<u32>,
    /// False to continue past the end-of-text token (vLLM's `ignore_eos`).
    pub stop_at_eos: bool,
    /// The adapter of an engine's stack that computes it; none: the model as it is.
    pub adapter: Option<AdapterId>,
    /// The client that sent it, whose share of an engine is limited; all of an address or a key, for example.
    pub client: u64,
    /// Number of most probable tokens, with their log-probabilities, told for each generated token.
    pub top_logprobs: usize,
    /// True to be told the log-probabilities of the prompt's tokens too.
    pub prompt_logprobs: bool,
}

impl GenerationRequest {
    /// A request for one greedy completion.
    pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Self {
        GenerationRequest {
            prompt,
            n: 1,
            max_tokens,
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            stop_at_eos: true,
            adapter: None,
            client: 0,
            top_logprobs: 0,
            prompt_logprobs: false,
        }
    }

    /// Checks that the request fits a model of `vocab` tokens and `positions` positions.
    ///
    /// # Errors
    /// When the prompt is empty or has an unknown token, or prompt and completion exceed the positions.
    pub(super) fn check(&self, vocab: usize, positions: usize) -> Result<()> {
        let length = self.prompt.len().saturating_add(self.max_tokens);
        if self.prompt.is_empty() {
            return Err(Error::new("the prompt has no token"));
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

/// The reason why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The end-of-text token or a stop string was generated.
    Stop,
    /// `max_tokens` tokens were generated.
    Length,
}

impl FinishReason {
    /// The name in OpenAI's API.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// One completion of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Text up to the stop string; empty without a tokenizer.
    pub text: String,
    /// Every generated token, including the end-of-text token and the tokens of a stop string.
    pub token_ids: Vec<u32>,
    /// log p of each token under the model's distribution, before temperature and filters.
    pub logprobs: Vec<f32>,
    pub finish_reason: FinishReason,
}

/// A token and its log-probability under the model's distribution, before penalties, temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub id: u32,
    pub logprob: f32,
    /// The most probable tokens with theirs, most probable first, as many as the request wants.
    pub top: Vec<(u32, f32)>,
}
