//! News of requests: what a step of the engine returns.

use super::request::{FinishReason, TokenLogprob};
use super::sequence::RequestId;
use codelsi_engine::{Error, Result};

/// News of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is computed.
    Prefilled {
        request: RequestId,
        /// Tokens of the prompt that the prefix cache held.
        cached: usize,
        /// Log-probability of each token of the prompt, where they are wanted; the first has none.
        prompt: Vec<Option<TokenLogprob>>,
    },
    /// A sample has a new token.
    Token {
        request: RequestId,
        sample: usize,
        token: TokenLogprob,
        /// Text that may be shown now: no character is split, and no stop string can cut it any more.
        text: String,
    },
    /// A sample is complete.
    Finished {
        request: RequestId,
        sample: usize,
        reason: FinishReason,
        /// The rest of the text.
        text: String,
    },
}

/// Outcome of a step.
#[derive(Debug, Default)]
pub struct EngineOutputs {
    pub events: Vec<Event>,
    /// Requests that have ended without a completion, each once; others are as if these had not been.
    pub failures: Vec<Failure>,
}

/// A request whose logits are not finite, e.g. by an adapter that overflows.
#[derive(Debug)]
pub struct Failure {
    pub request: RequestId,
    pub error: Error,
}

impl EngineOutputs {
    /// Returns the events, for a caller to whom one failed request is the end.
    ///
    /// # Errors
    /// When a request has failed.
    pub fn into_events(self) -> Result<Vec<Event>> {
        self.failures.into_iter().next().map_or(Ok(self.events), |failure| Err(failure.error))
    }

    /// Notes that a request fails, for the first reason given.
    pub(super) fn fail(&mut self, request: RequestId, error: Error) {
        if self.failures.iter().all(|failure| failure.request != request) {
            self.failures.push(Failure { request, error });
        }
    }
}
