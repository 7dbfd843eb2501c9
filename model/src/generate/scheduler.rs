//! Continuous batching: each step carries the next token of every running sequence and a chunk of a waiting prompt.

use super::kv_cache::{BlockTable, KvCache};
use super::model_runner::{ModelRunner, StepCapacity, StepInputs, table_width};
use super::request::{Completion, FinishReason, GenerationRequest};
use super::stop_checker::StopChecker;
use crate::end_tokens::end_tokens;
use crate::llama::Llama;
use crate::tokenizer::Tokenizer;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Device, Result, interrupt};
use codelsi_kernels::sample::{PackedParams, RowSamplingParams};
use std::collections::VecDeque;
use std::ops::Range;

/// Limits of a step's work. They do not change any completion.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Upper limit of sequences in a decode batch.
    pub max_sequences: usize,
    /// Upper limit of prompt tokens in one step (chunked prefill).
    pub prefill_chunk: usize,
    /// Tokens per page of the KV cache.
    pub page_size: usize,
    /// True to record decode-only steps as CUDA graphs and replay them, on a GPU.
    pub cuda_graphs: bool,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        SchedulerConfig { max_sequences: 64, prefill_chunk: 512, page_size: 16, cuda_graphs: true }
    }
}

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
    for (i, request) in requests.iter().enumerate() {
        request.check(model.config().vocab, model.config().max_positions).at(format!("request {i}"))?;
    }
    let mut scheduler = Scheduler::new(device, model, tokenizer, requests, limits)?;
    while scheduler.has_work() {
        interrupt::check("the completions in progress are not kept")?;
        progress(scheduler.step()?);
    }
    Ok(scheduler.completions.into_iter().map(|samples| samples.into_iter().flatten().collect()).collect())
}

/// A sequence that is being prefilled or decoded.
struct Sequence<'a> {
    /// Index of its request.
    request: usize,
    /// Index of the wave in which it was admitted.
    wave: usize,
    /// Index among the request's completions; unused while the prompt is in prefill, before it is forked.
    sample: usize,
    /// Prompt and completion.
    tokens: Vec<u32>,
    /// Length of the prompt.
    prompt_len: usize,
    /// Number of tokens whose keys and values are in the cache.
    cached: usize,
    table: BlockTable,
    logprobs: Vec<f32>,
    stop_checker: StopChecker<'a>,
}

/// Completions of one request that are admitted together: all of them, or a part where they are more than a batch.
struct Wave {
    /// Index of the request.
    request: usize,
    samples: Range<usize>,
    /// Pages reserved for it, released with its last completion.
    pages: usize,
    /// Unfinished completions.
    unfinished: usize,
}

/// Waiting waves, the sequences in the cache, and the completions so far.
struct Scheduler<'a> {
    model: &'a Llama,
    tokenizer: Option<&'a Tokenizer>,
    requests: &'a [GenerationRequest],
    limits: SchedulerConfig,
    runner: ModelRunner<'a>,
    cache: KvCache,
    /// Pages of the longest possible sequence: the width of a block table.
    width: usize,
    /// Pages reserved by admitted waves.
    reserved: usize,
    /// Pages of the cache.
    pages: usize,
    waves: Vec<Wave>,
    /// Indices of waves that are not admitted yet.
    waiting: VecDeque<usize>,
    prefilling: Option<Sequence<'a>>,
    running: Vec<Sequence<'a>>,
    /// Tokens that end a text.
    end_tokens: Vec<u32>,
    /// Completions of each request; none while a sequence is unfinished.
    completions: Vec<Vec<Option<Completion>>>,
}

impl<'a> Scheduler<'a> {
    fn new(
        device: &'a Device,
        model: &'a Llama,
        tokenizer: Option<&'a Tokenizer>,
        requests: &'a [GenerationRequest],
        limits: SchedulerConfig,
    ) -> Result<Self> {
        let max = |size: &dyn Fn(&GenerationRequest) -> usize| requests.iter().map(size).max().unwrap_or(0);
        let samples: usize = requests.iter().map(|r| r.n).sum();
        let tokens = |r: &GenerationRequest| r.prompt.len() + r.max_tokens;
        let waves = waves(requests, limits);
        // Enough for a full batch of the largest requests, or for the largest wave alone.
        let largest_wave = waves.iter().map(|wave| wave.pages).max().unwrap_or(0);
        let width = max(&|r| tokens(r).div_ceil(limits.page_size));
        let sequences = limits.max_sequences.min(samples);
        let pages = largest_wave.max((width + 1) * sequences);
        let capacity = StepCapacity {
            rows: sequences + max(&|r| r.prompt.len().min(limits.prefill_chunk)),
            sequences,
            width,
            penalized: sequences * max(&|r| if penalizes_tokens(r) { tokens(r) } else { 0 }),
        };
        let mut cache = KvCache::new(device, model, sequences + 1, pages, limits.page_size);
        Ok(Scheduler {
            runner: ModelRunner::new(device, model, &mut cache, capacity, limits.cuda_graphs)?,
            cache,
            model,
            tokenizer,
            requests,
            limits,
            width,
            reserved: 0,
            pages,
            waiting: (0..waves.len()).collect(),
            waves,
            prefilling: None,
            running: Vec::new(),
            end_tokens: end_tokens(model.config(), tokenizer),
            completions: requests.iter().map(|r| vec![None; r.n]).collect(),
        })
    }

    fn has_work(&self) -> bool {
        !(self.waiting.is_empty() && self.prefilling.is_none() && self.running.is_empty())
    }

    /// Starts the prefill of the next wave, if its completions fit into the cache with those that are running.
    fn admit(&mut self) {
        let Some(&next) = self.waiting.front() else { return };
        let wave = &self.waves[next];
        let request = &self.requests[wave.request];
        let fits = self.running.is_empty()
            || self.running.len() + wave.samples.len() <= self.limits.max_sequences
                && self.reserved + wave.pages <= self.pages;
        if self.prefilling.is_some() || !fits {
            return;
        }
        self.waiting.pop_front();
        self.reserved += wave.pages;
        self.prefilling = Some(Sequence {
            request: wave.request,
            wave: next,
            sample: 0,
            tokens: request.prompt.clone(),
            prompt_len: request.prompt.len(),
            cached: 0,
            table: BlockTable::default(),
            logprobs: Vec::new(),
            stop_checker: StopChecker::new(self.tokenizer, &request.stop),
        });
    }

    /// Runs one forward pass; returns the number of generated tokens.
    fn step(&mut self) -> Result<usize> {
        self.admit();
        let step = self.schedule()?;
        self.cache.copy_shared(&self.runner.cx)?;
        let choices = self.runner.run(&mut self.cache, &step)?;
        for (sequence, choice) in self.running.iter_mut().zip(&choices) {
            sequence.tokens.push(choice.token as u32);
            sequence.logprobs.push(choice.logprob);
        }
        self.retire();
        Ok(choices.len())
    }

    /// Returns the next step's inputs: the last token of every running sequence, and a chunk of the prompt in
    /// prefill. After its last chunk a prompt becomes the sequences of its completions.
    fn schedule(&mut self) -> Result<StepInputs> {
        let mut step = StepInputs::default();
        for (i, sequence) in self.running.iter_mut().enumerate() {
            step.logit_rows.push(step.rows() as i32);
            push_rows(&mut step, &mut self.cache, sequence, i, 1)?;
        }
        if let Some(sequence) = &mut self.prefilling {
            push_rows(&mut step, &mut self.cache, sequence, self.running.len(), self.limits.prefill_chunk)?;
            if sequence.cached == sequence.prompt_len {
                step.logit_rows.push(step.rows() as i32 - 1);
            }
        }
        (step.block_tables, step.width) = self.block_tables();
        self.fork_prefilled();
        // Completions forked from one prompt share its row of logits.
        let last = step.logit_rows.len().saturating_sub(1);
        step.sample_rows = (0..self.running.len()).map(|i| i.min(last) as i32).collect();
        step.sampling = self.sampling_params()?;
        Ok(step)
    }

    /// Returns the block tables of the running sequences and the one in prefill, padded with −1, and their width.
    fn block_tables(&self) -> (Vec<i32>, usize) {
        let tables = || self.running.iter().chain(&self.prefilling).map(|sequence| &sequence.table.pages);
        let longest = tables().map(Vec::len).max().unwrap_or(0);
        let width = table_width(longest, self.limits.page_size, self.width);
        let mut flat = Vec::new();
        for pages in tables() {
            let end = flat.len() + width;
            flat.extend(pages.iter().map(|&page| page as i32));
            flat.resize(end, -1);
        }
        (flat, width)
    }

    /// Turns a prompt whose last token is cached into the sequences of its completions.
    fn fork_prefilled(&mut self) {
        let Some(prompt) = self.prefilling.take_if(|s| s.cached == s.prompt_len) else { return };
        let request = &self.requests[prompt.request];
        for sample in self.waves[prompt.wave].samples.clone() {
            self.running.push(Sequence {
                request: prompt.request,
                wave: prompt.wave,
                sample,
                tokens: prompt.tokens.clone(),
                prompt_len: prompt.prompt_len,
                cached: prompt.cached,
                table: self.cache.fork(&prompt.table),
                logprobs: Vec::new(),
                stop_checker: StopChecker::new(self.tokenizer, &request.stop),
            });
        }
        self.cache.release(prompt.table);
    }

    /// Returns the sampling parameters of every running sequence's next token.
    fn sampling_params(&self) -> Result<PackedParams> {
        let previous = |s: &Sequence| match penalizes_tokens(&self.requests[s.request]) {
            true => s.tokens.iter().map(|&t| t as i32).collect(),
            false => Vec::new(),
        };
        let previous: Vec<Vec<i32>> = self.running.iter().map(previous).collect();
        let params = self.running.iter().zip(&previous).map(|(s, previous)| self.params(s, previous));
        PackedParams::new(&params.collect::<Vec<_>>(), self.model.config().vocab)
    }

    fn params<'p>(&self, sequence: &Sequence, previous: &'p [i32]) -> RowSamplingParams<'p> {
        let s = &self.requests[sequence.request].sampling;
        RowSamplingParams {
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
            frequency_penalty: s.frequency_penalty,
            presence_penalty: s.presence_penalty,
            previous,
            prompt_len: sequence.prompt_len.min(previous.len()),
            key: RngKey { seed: s.seed, step: sequence.tokens.len() as u32, site: sequence.sample as u32 },
        }
    }

    /// Removes finished sequences and stores their completions.
    fn retire(&mut self) {
        let mut unfinished = Vec::with_capacity(self.running.len());
        for mut sequence in std::mem::take(&mut self.running) {
            let Some(finish) = self.finish_reason(&mut sequence) else {
                unfinished.push(sequence);
                continue;
            };
            self.cache.release(sequence.table);
            self.completions[sequence.request][sequence.sample] = Some(Completion {
                text: sequence.stop_checker.finish(finish),
                token_ids: sequence.tokens[sequence.prompt_len..].to_vec(),
                logprobs: sequence.logprobs,
                finish_reason: finish,
            });
            let wave = &mut self.waves[sequence.wave];
            wave.unfinished -= 1;
            if wave.unfinished == 0 {
                self.reserved -= wave.pages;
            }
        }
        self.running = unfinished;
    }

    /// Checks a sequence's newest token; returns the reason if the sequence ends with it.
    fn finish_reason(&self, sequence: &mut Sequence) -> Option<FinishReason> {
        let request = &self.requests[sequence.request];
        let generated = sequence.tokens.len() - sequence.prompt_len;
        let token = sequence.tokens[sequence.tokens.len() - 1];
        let at_eos = request.stop_at_eos && self.end_tokens.contains(&token);
        if at_eos || sequence.stop_checker.push(token) {
            return Some(FinishReason::Stop);
        }
        (generated >= request.max_tokens).then_some(FinishReason::Length)
    }
}

/// Appends up to `max_rows` uncached tokens of a sequence as rows, and prepares their slots.
fn push_rows(
    step: &mut StepInputs,
    cache: &mut KvCache,
    sequence: &mut Sequence,
    index: usize,
    max_rows: usize,
) -> Result<()> {
    let end = sequence.tokens.len().min(sequence.cached + max_rows);
    for position in sequence.cached..end {
        let slot = cache.slot(&mut sequence.table, position)?;
        step.push(sequence.tokens[position], position, index, slot);
    }
    sequence.cached = end;
    Ok(())
}

/// True if a request's sampling reads its previous tokens.
fn penalizes_tokens(request: &GenerationRequest) -> bool {
    let s = &request.sampling;
    s.repetition_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
}

/// The waves of all requests, in their order. The completions of one that has more than a batch are split, so that some
/// start as soon as some have ended.
fn waves(requests: &[GenerationRequest], limits: SchedulerConfig) -> Vec<Wave> {
    const PARTS: usize = 8;
    let of_request = |(i, request): (usize, &GenerationRequest)| {
        let part = if request.n > limits.max_sequences { limits.max_sequences / PARTS } else { request.n };
        let wave = |start: usize| {
            let samples = start..(start + part.max(1)).min(request.n);
            let (pages, unfinished) = (pages_of(request, samples.len(), limits.page_size), samples.len());
            Wave { request: i, samples, pages, unfinished }
        };
        (0..request.n).step_by(part.max(1)).map(wave).collect::<Vec<_>>()
    };
    requests.iter().enumerate().flat_map(of_request).collect()
}

/// Upper limit of the pages that `n` completions of a request use: its prompt's, and for each completion a copy of the
/// prompt's last page and the pages of its tokens.
fn pages_of(request: &GenerationRequest, n: usize, page_size: usize) -> usize {
    request.prompt.len().div_ceil(page_size) + n * (request.max_tokens.div_ceil(page_size) + 1)
}
