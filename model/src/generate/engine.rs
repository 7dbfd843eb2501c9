//! The engine: requests join and leave while others run.

use super::block_manager::BlockManager;
use super::events::{EngineOutputs, Event};
use super::kv_cache::KvCache;
use super::logprobs::{prompt_logprobs, token_logprob};
use super::model_runner::{ModelRunner, StepCapacity, StepInputs, StepOutputs, table_width};
use super::request::{FinishReason, GenerationRequest};
use super::scheduler::{ScheduledRows, Scheduler, SchedulerConfig};
use super::sequence::{RequestId, Sequence};
use crate::adapter::Adapter;
use crate::adapter_stack::{AdapterId, AdapterSlots, AdapterStack};
use crate::end_tokens::end_tokens;
use crate::llama::Llama;
use crate::tokenizer::Tokenizer;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Device, Error, Result};
use codelsi_kernels::sample::{PackedParams, RowSamplingParams, SampledToken};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Limits of an engine. None of them changes a completion.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    pub scheduler: SchedulerConfig,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Upper limit of a prompt and its completion together, in tokens; at most the model's positions and one.
    pub max_model_len: usize,
    /// Keeps full pages of what was computed for prompts that begin the same.
    pub prefix_cache: bool,
    /// Upper limit of unfinished requests.
    pub max_requests: usize,
    /// Upper limit of a client's unfinished requests.
    pub max_requests_per_client: usize,
    /// Room for adapters; none: every row is computed by the model as it is.
    pub adapters: AdapterSlots,
}

impl EngineConfig {
    /// Limits of an engine with `pages` pages for sequences of up to `max_model_len` tokens, open to any number of requests.
    pub fn new(scheduler: SchedulerConfig, pages: usize, max_model_len: usize) -> Self {
        EngineConfig {
            scheduler,
            pages,
            max_model_len,
            prefix_cache: true,
            max_requests: usize::MAX,
            max_requests_per_client: usize::MAX,
            adapters: AdapterSlots::default(),
        }
    }
}

/// The reason why a request was not added.
#[derive(Debug)]
pub enum AddError {
    /// It can never run.
    Invalid(Error),
    /// There are too many unfinished ones, of this client or of all.
    Overloaded(Error),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (AddError::Invalid(e) | AddError::Overloaded(e)) = self;
        write!(f, "{e}")
    }
}

impl AddError {
    /// Returns the error that it holds.
    pub fn into_error(self) -> Error {
        let (AddError::Invalid(e) | AddError::Overloaded(e)) = self;
        e
    }
}

/// Counts of an engine's work. Totals are since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences that wait.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
    /// Pages that sequences use.
    pub pages_used: usize,
    /// Pages that no sequence uses.
    pub pages_free: usize,
    /// Free pages that the prefix cache holds.
    pub pages_cached: usize,
    /// Total of rows computed for prompts, and for what was preempted.
    pub prefill_tokens: u64,
    /// Total of tokens that the prefix cache held.
    pub prefix_hit_tokens: u64,
    /// Total of sampled tokens.
    pub generated_tokens: u64,
    /// Total of sequences that gave up their pages.
    pub preemptions: u64,
}

/// Generates for requests that come and go: [`Engine::add`], then [`Engine::step`] while [`Engine::has_work`].
///
/// A completion depends on its request alone, never on other requests, the prefix cache or a preemption.
pub struct Engine<'m> {
    model: &'m Llama,
    tokenizer: Option<&'m Tokenizer>,
    config: EngineConfig,
    runner: ModelRunner<'m>,
    cache: KvCache,
    blocks: BlockManager,
    scheduler: Scheduler,
    stack: AdapterStack,
    /// Pages of the longest possible sequence: the width of a block table.
    width: usize,
    /// Tokens that end a text.
    end_tokens: Vec<u32>,
    unfinished: HashMap<RequestId, Unfinished>,
    next_id: u64,
    stats: EngineStats,
}

/// A request with unfinished samples.
struct Unfinished {
    client: u64,
    adapter: Option<AdapterId>,
    samples: usize,
}

impl<'m> Engine<'m> {
    /// Prepares an engine over a model on `device`. Without a tokenizer there is no text, and stop strings are ignored.
    ///
    /// # Errors
    /// When the device has no memory left, or adapters are to have room beside an attached one.
    pub fn new(
        device: &Device,
        model: &'m Llama,
        tokenizer: Option<&'m Tokenizer>,
        config: EngineConfig,
    ) -> Result<Self> {
        let SchedulerConfig { max_sequences, prefill_chunk, page_size, .. } = config.scheduler;
        let sequences = max_sequences.max(1);
        let capacity = StepCapacity {
            rows: sequences + prefill_chunk.max(1),
            sequences,
            width: config.max_model_len.div_ceil(page_size).min(config.pages),
            penalized: sequences * config.max_model_len,
        };
        Engine::with_capacity(device, model, tokenizer, config, capacity)
    }

    /// Prepares an engine for these requests alone: with pages for a full batch of the largest, or for the largest alone.
    pub(super) fn for_requests(
        device: &Device,
        model: &'m Llama,
        tokenizer: Option<&'m Tokenizer>,
        requests: &[GenerationRequest],
        scheduler: SchedulerConfig,
    ) -> Result<Self> {
        let max = |size: &dyn Fn(&GenerationRequest) -> usize| requests.iter().map(size).max().unwrap_or(0);
        let tokens = |r: &GenerationRequest| r.prompt.len() + r.max_tokens;
        let page_size = scheduler.page_size;
        let width = max(&|r| tokens(r).div_ceil(page_size));
        let sequences = scheduler.max_sequences.min(requests.iter().map(|r| r.n).sum());
        let largest = max(&|r| pages_of(r, part_of(r.n, scheduler.max_sequences), page_size));
        let config = EngineConfig::new(scheduler, largest.max((width + 1) * sequences), max(&|r| tokens(r)));
        let capacity = StepCapacity {
            rows: sequences + scheduler.prefill_chunk.min(requests.iter().map(|r| r.prompt.len()).sum()),
            sequences,
            width,
            penalized: sequences * max(&|r| if penalizes_tokens(r) { tokens(r) } else { 0 }),
        };
        Engine::with_capacity(device, model, tokenizer, config, capacity)
    }

    fn with_capacity(
        device: &Device,
        model: &'m Llama,
        tokenizer: Option<&'m Tokenizer>,
        config: EngineConfig,
        capacity: StepCapacity,
    ) -> Result<Self> {
        if config.adapters.count > 0 && model.has_adapter() {
            return Err(Error::new("the model has an adapter attached, so that rows cannot choose theirs"));
        }
        let (pages, page_size) = (config.pages, config.scheduler.page_size);
        let width = capacity.width;
        let mut cache = KvCache::new(device, model, capacity.sequences + 1, pages, page_size);
        let stack = AdapterStack::new(device, model.config(), config.adapters);
        let graphs = config.scheduler.cuda_graphs;
        Ok(Engine {
            runner: ModelRunner::new(device, model, &mut cache, &stack, capacity, graphs)?,
            cache,
            blocks: BlockManager::new(pages, page_size, config.prefix_cache),
            scheduler: Scheduler::new(config.scheduler),
            stack,
            width,
            end_tokens: end_tokens(model.config(), tokenizer),
            unfinished: HashMap::new(),
            next_id: 0,
            stats: EngineStats::default(),
            model,
            tokenizer,
            config,
        })
    }

    /// Adds a request, which begins to run in one of the next steps.
    ///
    /// # Errors
    /// When it does not fit the model or the KV cache, names an adapter that is not loaded, or there are too many.
    pub fn add(&mut self, request: GenerationRequest) -> std::result::Result<RequestId, AddError> {
        self.check(&request).map_err(AddError::Invalid)?;
        self.check_load(request.client).map_err(AddError::Overloaded)?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let (client, adapter, samples) = (request.client, request.adapter, request.n);
        self.unfinished.insert(id, Unfinished { client, adapter, samples });
        let (n, part) = (request.n, part_of(request.n, self.config.scheduler.max_sequences));
        let request = Arc::new(request);
        let parts = (0..n).step_by(part).map(|start| start..(start + part).min(n));
        self.scheduler.waiting.extend(parts.map(|samples| Sequence::new(id, &request, samples)));
        Ok(id)
    }

    /// Checks that a request can run at all.
    fn check(&self, request: &GenerationRequest) -> Result<()> {
        if request.n == 0 {
            return Err(Error::new("no completion was asked for: n is 0"));
        }
        request.check(self.model.config().vocab, self.model.config().max_positions)?;
        let tokens = request.prompt.len() + request.max_tokens;
        if tokens > self.config.max_model_len {
            return Err(Error::new(format!(
                "{} prompt tokens and {} new ones exceed the limit of {} tokens; shorten the prompt or ask for fewer",
                request.prompt.len(),
                request.max_tokens,
                self.config.max_model_len
            )));
        }
        if self.blocks.pages_of(tokens) > self.blocks.pages() {
            return Err(Error::new(format!(
                "{tokens} tokens take {} pages of the KV cache, which has {}",
                self.blocks.pages_of(tokens),
                self.blocks.pages()
            )));
        }
        match request.adapter {
            Some(id) if self.stack.slot(id).is_none() => Err(Error::new("its adapter is not loaded")),
            _ => Ok(()),
        }
    }

    /// Checks that the client, and all clients together, have room for one more request.
    fn check_load(&self, client: u64) -> Result<()> {
        let EngineConfig { max_requests, max_requests_per_client, .. } = self.config;
        if self.unfinished.len() >= max_requests {
            return Err(Error::new(format!("{max_requests} requests are unfinished; try again later")));
        }
        let own = self.unfinished.values().filter(|unfinished| unfinished.client == client).count();
        if own >= max_requests_per_client {
            return Err(Error::new(format!(
                "{max_requests_per_client} requests of this client are unfinished; wait for one of them"
            )));
        }
        Ok(())
    }

    /// Ends a request without further events; its pages are free when this returns. Does nothing if it has ended.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.remove(id, &mut self.blocks);
        self.unfinished.remove(&id);
    }

    /// True while a request is unfinished.
    pub fn has_work(&self) -> bool {
        self.scheduler.has_work()
    }

    /// Counts of the work so far, and of what is in progress.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            waiting: self.scheduler.waiting.len(),
            running: self.scheduler.running.len(),
            pages_used: self.blocks.pages() - self.blocks.available(),
            pages_free: self.blocks.available(),
            pages_cached: self.blocks.cached_pages(),
            preemptions: self.scheduler.preemptions,
            ..self.stats
        }
    }

    /// Loads an adapter, which rows of requests may then name.
    ///
    /// # Errors
    /// When it is not plain LoRA, or there is no room for it; nothing has changed then.
    pub fn load_adapter(&mut self, adapter: &Adapter) -> Result<AdapterId> {
        let (id, grown) = self.stack.load(self.model.rank_layout(), self.model.config(), adapter)?;
        let ready = if grown { self.runner.record_anew(&mut self.cache, &self.stack) } else { Ok(()) };
        ready.inspect_err(|_| self.stack.unload(id))?;
        Ok(id)
    }

    /// Unloads an adapter, and cancels its requests; returns these.
    pub fn unload_adapter(&mut self, id: AdapterId) -> Vec<RequestId> {
        let uses = |(&request, unfinished): (&RequestId, &Unfinished)| {
            (unfinished.adapter == Some(id)).then_some(request)
        };
        let cancelled: Vec<RequestId> = self.unfinished.iter().filter_map(uses).collect();
        cancelled.iter().for_each(|&request| self.cancel(request));
        self.stack.unload(id);
        cancelled
    }

    /// Runs one forward pass, and returns what is new.
    ///
    /// # Errors
    /// When an op fails: the engine is not to be used further.
    pub fn step(&mut self) -> Result<EngineOutputs> {
        let scheduled = self.scheduler.schedule(&mut self.blocks);
        if scheduled.is_empty() {
            return Ok(EngineOutputs::default());
        }
        let step = self.inputs(&scheduled)?;
        self.cache.copy(&self.runner.cx, &self.blocks.take_copies())?;
        let outputs = self.runner.run(&mut self.cache, &self.stack, &step)?;
        Ok(self.advance(&scheduled, &step, outputs))
    }

    /// Returns the inputs of a step over the scheduled rows.
    fn inputs(&self, scheduled: &[ScheduledRows]) -> Result<StepInputs> {
        let mut step = StepInputs::default();
        let mut samplers = Vec::new();
        for (i, &ScheduledRows { sequence, rows }) in scheduled.iter().enumerate() {
            let s = &self.scheduler.running[sequence];
            let adapter = s.request.adapter.and_then(|id| self.stack.slot(id));
            let first = step.rows() as i32;
            for position in s.computed..s.computed + rows {
                let slot = self.blocks.slot(&s.table, position)?;
                step.push(s.tokens[position], position, i, slot, adapter);
            }
            let samples = sampled_after(s, rows);
            let rows = first..step.rows() as i32;
            if s.wants_prompt_logprobs() {
                step.logit_rows.extend(rows);
            } else if !samples.is_empty() {
                step.logit_rows.extend(rows.last());
            }
            // The samples of one prompt share its last row of logits.
            let last = step.logit_rows.len() as i32 - 1;
            step.sample_rows.extend(samples.clone().map(|_| last));
            step.wants_logits |=
                s.wants_prompt_logprobs() || !samples.is_empty() && s.request.top_logprobs > 0;
            samplers.extend(samples.map(|sample| (s, sample)));
        }
        (step.block_tables, step.width) = self.block_tables(scheduled);
        step.sampling = self.sampling_params(&samplers)?;
        Ok(step)
    }

    /// Returns the block tables of the scheduled sequences, padded with −1, and their width.
    fn block_tables(&self, scheduled: &[ScheduledRows]) -> (Vec<i32>, usize) {
        let tables = || scheduled.iter().map(|s| &self.scheduler.running[s.sequence].table.pages);
        let longest = tables().map(Vec::len).max().unwrap_or(0);
        let width = table_width(longest, self.config.scheduler.page_size, self.width);
        let mut flat = Vec::with_capacity(width * scheduled.len());
        for pages in tables() {
            let end = flat.len() + width;
            flat.extend(pages.iter().map(|&page| page as i32));
            flat.resize(end, -1);
        }
        (flat, width)
    }

    /// Returns the sampling parameters of the next token of each (sequence, sample).
    fn sampling_params(&self, samplers: &[(&Sequence, usize)]) -> Result<PackedParams> {
        let previous = |&(s, _): &(&Sequence, usize)| match penalizes_tokens(&s.request) {
            true => s.tokens.iter().map(|&t| t as i32).collect(),
            false => Vec::new(),
        };
        let previous: Vec<Vec<i32>> = samplers.iter().map(previous).collect();
        let rows = samplers.iter().zip(&previous);
        let params = rows.map(|(&(sequence, sample), previous)| row_params(sequence, sample, previous));
        PackedParams::new(&params.collect::<Vec<_>>(), self.model.config().vocab)
    }

    /// Takes a step's results: every scheduled sequence has its rows in the cache, and perhaps a new token.
    fn advance(
        &mut self,
        scheduled: &[ScheduledRows],
        step: &StepInputs,
        StepOutputs { choices, logits }: StepOutputs,
    ) -> EngineOutputs {
        let vocab = self.model.config().vocab;
        let logits_of = |row: i32| logits.chunks_exact(vocab).nth(row as usize);
        let mut sampled = choices.into_iter().zip(step.sample_rows.iter().map(|&row| logits_of(row)));
        let mut logit_rows = 0..step.logit_rows.len() as i32;
        let mut scheduled = scheduled.iter().peekable();
        let mut outputs = EngineOutputs::default();
        for (i, mut sequence) in std::mem::take(&mut self.scheduler.running).into_iter().enumerate() {
            let Some(&ScheduledRows { rows, .. }) = scheduled.next_if(|s| s.sequence == i) else {
                self.scheduler.running.push(sequence);
                continue;
            };
            let samples = sampled_after(&sequence, rows).len();
            if sequence.wants_prompt_logprobs() {
                let logits: Vec<&[f32]> = logit_rows.by_ref().take(rows).filter_map(logits_of).collect();
                if let Err(error) = prompt_logprobs(&mut sequence, &logits) {
                    outputs.fail(sequence.id, error);
                }
            } else if samples > 0 {
                logit_rows.next();
            }
            self.count(&sequence, rows, samples);
            sequence.computed += rows;
            let Sequence { table, request, tokens, computed, .. } = &mut sequence;
            self.blocks.register(table, request.adapter, tokens, *computed);
            if sequence.pending() > 0 {
                self.scheduler.running.push(sequence);
                continue;
            }
            outputs.events.extend(announce(&mut sequence));
            for fork in sequence.fork(&mut self.blocks) {
                let new = if samples > 0 { sampled.next() } else { None };
                self.take_token(fork, new, &mut outputs);
            }
        }
        outputs.failures.iter().for_each(|failure| self.cancel(failure.request));
        outputs
    }

    /// Appends a token to a sequence, which goes on or ends. Without one, nothing was asked for.
    fn take_token(
        &mut self,
        mut sequence: Sequence,
        new: Option<(Result<SampledToken>, Option<&[f32]>)>,
        outputs: &mut EngineOutputs,
    ) {
        let (request, sample) = (sequence.id, sequence.samples.start);
        let mut reason = Some(FinishReason::Length);
        if let Some((choice, logits)) = new {
            let choice = match choice {
                Ok(choice) => choice,
                Err(error) => {
                    outputs.fail(request, error);
                    return self.scheduler.running.push(sequence);
                }
            };
            sequence.tokens.push(choice.token as u32);
            reason = self.finish_reason(&mut sequence);
            let token = token_logprob(choice, logits, sequence.request.top_logprobs);
            let text = match reason {
                None => sequence.stop_checker.take_certain(&sequence.request.stop),
                Some(_) => String::new(),
            };
            outputs.events.push(Event::Token { request, sample, token, text });
        }
        let Some(reason) = reason else { return self.scheduler.running.push(sequence) };
        let text = sequence.stop_checker.finish(&sequence.request.stop, reason);
        self.blocks.release(sequence.table);
        outputs.events.push(Event::Finished { request, sample, reason, text });
        if let Some(unfinished) = self.unfinished.get_mut(&request) {
            unfinished.samples -= 1;
            if unfinished.samples == 0 {
                self.unfinished.remove(&request);
            }
        }
    }

    /// Checks a sequence's newest token; returns the reason if the sequence ends with it.
    fn finish_reason(&self, sequence: &mut Sequence) -> Option<FinishReason> {
        let (request, token) = (&sequence.request, sequence.tokens[sequence.tokens.len() - 1]);
        let at_eos = request.stop_at_eos && self.end_tokens.contains(&token);
        if at_eos
            || request.stop_token_ids.contains(&token)
            || sequence.stop_checker.push(self.tokenizer, &request.stop, token)
        {
            return Some(FinishReason::Stop);
        }
        (sequence.generated() >= request.max_tokens).then_some(FinishReason::Length)
    }

    fn count(&mut self, sequence: &Sequence, rows: usize, samples: usize) {
        let stats = &mut self.stats;
        stats.prefill_tokens += if sequence.is_prefill() { rows as u64 } else { 0 };
        stats.generated_tokens += samples as u64;
        let complete = sequence.pending() == rows && !sequence.announced;
        stats.prefix_hit_tokens += if complete { sequence.cached as u64 } else { 0 };
    }
}

/// Returns the event of a prompt that is computed, once.
fn announce(sequence: &mut Sequence) -> Option<Event> {
    let first = !std::mem::replace(&mut sequence.announced, true);
    first.then(|| Event::Prefilled {
        request: sequence.id,
        cached: sequence.cached,
        prompt: std::mem::take(&mut sequence.prompt_logprobs),
    })
}

/// The samples whose next token is drawn after a step with `rows` rows of the sequence.
fn sampled_after(sequence: &Sequence, rows: usize) -> Range<usize> {
    match sequence.pending() == rows && sequence.request.max_tokens > 0 {
        true => sequence.samples.clone(),
        false => 0..0,
    }
}

fn row_params<'p>(sequence: &Sequence, sample: usize, previous: &'p [i32]) -> RowSamplingParams<'p> {
    let s = &sequence.request.sampling;
    RowSamplingParams {
        temperature: s.temperature,
        top_k: s.top_k,
        top_p: s.top_p,
        min_p: s.min_p,
        repetition_penalty: s.repetition_penalty,
        frequency_penalty: s.frequency_penalty,
        presence_penalty: s.presence_penalty,
        previous,
        prompt_len: sequence.request.prompt.len().min(previous.len()),
        key: RngKey { seed: s.seed, step: sequence.tokens.len() as u32, site: sample as u32 },
    }
}

/// True if a request's sampling reads its previous tokens.
fn penalizes_tokens(request: &GenerationRequest) -> bool {
    let s = &request.sampling;
    s.repetition_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
}

/// Number of a request's samples that begin together: all of them, or a part where they are more than a batch, so that some
/// begin as soon as some have ended.
fn part_of(n: usize, max_sequences: usize) -> usize {
    const PARTS: usize = 8;
    if n > max_sequences { (max_sequences / PARTS).max(1) } else { n.max(1) }
}

/// Upper limit of the pages that `n` completions of a request use: its prompt's, and for each completion a copy of the
/// prompt's last page and the pages of its tokens.
fn pages_of(request: &GenerationRequest, n: usize, page_size: usize) -> usize {
    request.prompt.len().div_ceil(page_size) + n * (request.max_tokens.div_ceil(page_size) + 1)
}
