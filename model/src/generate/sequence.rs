//! A sequence: a prompt and a completion of it that grows.

use super::block_manager::{BlockManager, BlockTable};
use super::request::{GenerationRequest, TokenLogprob};
use super::stop_checker::StopChecker;
use std::ops::Range;
use std::sync::Arc;

/// Identifies a request of an [`super::Engine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// A prompt that is computed, or one of its completions.
pub(super) struct Sequence {
    pub id: RequestId,
    pub request: Arc<GenerationRequest>,
    /// The completions that begin here: several until the prompt is computed, then one.
    pub samples: Range<usize>,
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// Number of tokens whose keys and values are in the cache.
    pub computed: usize,
    pub table: BlockTable,
    pub stop_checker: StopChecker,
    /// True once its prompt was announced.
    pub announced: bool,
    /// Number of its prompt's tokens that the prefix cache held.
    pub cached: usize,
    /// Log-probabilities of its prompt's tokens so far, where they are wanted.
    pub prompt_logprobs: Vec<Option<TokenLogprob>>,
}

impl Sequence {
    /// Returns the sequence of a request's prompt, to be continued by `samples`.
    pub fn new(id: RequestId, request: &Arc<GenerationRequest>, samples: Range<usize>) -> Self {
        Sequence {
            id,
            // One announcement a request.
            announced: samples.start > 0,
            samples,
            tokens: request.prompt.clone(),
            computed: 0,
            table: BlockTable::default(),
            stop_checker: StopChecker::default(),
            cached: 0,
            prompt_logprobs: Vec::new(),
            request: request.clone(),
        }
    }

    /// Returns the sequences of its completions, once the prompt is computed: they share its pages.
    pub fn fork(mut self, blocks: &mut BlockManager) -> Vec<Sequence> {
        let samples = self.samples.clone();
        let mut forks = Vec::with_capacity(samples.len());
        for sample in samples.clone().skip(1) {
            forks.push(Sequence {
                samples: sample..sample + 1,
                computed: self.computed,
                table: blocks.fork(&self.table),
                announced: true,
                ..Sequence::new(self.id, &self.request, samples.clone())
            });
        }
        self.samples.end = samples.start + 1;
        forks.insert(0, self);
        forks
    }

    /// Gives up its pages: all of its tokens are to be computed again.
    pub fn preempt(&mut self, blocks: &mut BlockManager) {
        blocks.release(std::mem::take(&mut self.table));
        self.computed = 0;
        self.prompt_logprobs.clear();
    }

    /// Number of tokens that are to be computed.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// True while it computes tokens that are not new: its prompt, or after a preemption what it had.
    pub fn is_prefill(&self) -> bool {
        self.pending() > 1 || self.tokens.len() == self.request.prompt.len()
    }

    /// Number of generated tokens.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// True if its prompt's logits are wanted, so that all of it is to be computed.
    pub fn wants_prompt_logprobs(&self) -> bool {
        self.request.prompt_logprobs && !self.announced
    }
}
