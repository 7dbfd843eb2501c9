//! Continuous batching: each step carries the next token of every running sequence and a chunk of a waiting prompt.

use super::cache::{Cache, Table};
use super::step::{Size, Step, Stepper};
use super::stop::Ending;
use super::{Completion, Finish, Request};
use crate::llama::Llama;
use crate::tokenizer::Tokenizer;
use codelsi_engine::rng::Key;
use codelsi_engine::{At, Device, Result};
use codelsi_kernels::sample::{Params, Words};
use std::collections::VecDeque;

/// How much runs at once. None of it changes a completion.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences decoded together.
    pub batch: usize,
    /// Prompt tokens computed in one step.
    pub prefill: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Whether a card records steps that only decode and replays them.
    pub graphs: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { batch: 64, prefill: 512, page_size: 16, graphs: true }
    }
}

/// Completes every request; `result[i]` are the `n` completions of `requests[i]`. `progress` is told of each
/// token made. Without a tokenizer there are token ids only, and no stop strings.
///
/// # Errors
/// When a request does not fit the model, or the logits are not finite.
pub fn generate(
    device: &Device,
    model: &Llama,
    tokenizer: Option<&Tokenizer>,
    requests: &[Request],
    limits: Limits,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<Completion>>> {
    for (i, request) in requests.iter().enumerate() {
        request.check(model.config().vocab, model.config().max_positions).at(format!("request {i}"))?;
    }
    let mut run = Run::new(device, model, tokenizer, requests, limits)?;
    while run.busy() {
        progress(run.step()?);
    }
    Ok(run.done.into_iter().map(|samples| samples.into_iter().flatten().collect()).collect())
}

/// A sequence that is being prefilled or decoded.
struct Sequence<'a> {
    request: usize,
    /// Which of the request's samples; a prompt in prefill stands for all of them.
    sample: usize,
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt: usize,
    /// Tokens whose keys and values are in the cache.
    cached: usize,
    table: Table,
    /// Pages set aside for its request, to be given back with the last sample.
    reserved: usize,
    logprobs: Vec<f32>,
    ending: Ending<'a>,
}

struct Run<'a> {
    model: &'a Llama,
    tokenizer: Option<&'a Tokenizer>,
    requests: &'a [Request],
    limits: Limits,
    stepper: Stepper<'a>,
    cache: Cache,
    /// Pages of the largest sequence.
    width: usize,
    /// Pages set aside by admitted requests.
    reserved: usize,
    pages: usize,
    waiting: VecDeque<usize>,
    prefilling: Option<Sequence<'a>>,
    running: Vec<Sequence<'a>>,
    done: Vec<Vec<Option<Completion>>>,
}

impl<'a> Run<'a> {
    fn new(
        device: &'a Device,
        model: &'a Llama,
        tokenizer: Option<&'a Tokenizer>,
        requests: &'a [Request],
        limits: Limits,
    ) -> Result<Self> {
        let largest = |need: &dyn Fn(&Request) -> usize| requests.iter().map(need).max().unwrap_or(0);
        let samples: usize = requests.iter().map(|r| r.n).sum();
        let tokens = |r: &Request| r.prompt.len() + r.max_tokens;
        // Enough for a full batch of the largest requests, or for the largest request alone.
        let whole = largest(&|r| pages_of_request(r, limits.page_size));
        let width = largest(&|r| tokens(r).div_ceil(limits.page_size));
        let pages = whole.max((width + 1) * limits.batch.min(samples));
        let sequences = limits.batch.min(samples).max(largest(&|r| r.n));
        let penalized = largest(&|r| if penalizes(r) { tokens(r) } else { 0 });
        let size = Size {
            rows: sequences + largest(&|r| r.prompt.len().min(limits.prefill)),
            sequences,
            width,
            previous: sequences * penalized,
        };
        let mut cache = Cache::new(device, model, pages, limits.page_size);
        Ok(Run {
            stepper: Stepper::new(device, model, &mut cache, size, limits.graphs)?,
            cache,
            model,
            tokenizer,
            requests,
            limits,
            width,
            reserved: 0,
            pages,
            waiting: (0..requests.len()).filter(|&i| requests[i].n > 0).collect(),
            prefilling: None,
            running: Vec::new(),
            done: requests.iter().map(|r| vec![None; r.n]).collect(),
        })
    }

    fn busy(&self) -> bool {
        !(self.waiting.is_empty() && self.prefilling.is_none() && self.running.is_empty())
    }

    /// Starts the next prompt when its samples will fit beside what runs.
    fn admit(&mut self) {
        let Some(&next) = self.waiting.front() else { return };
        let request = &self.requests[next];
        let reserved = pages_of_request(request, self.limits.page_size);
        let fits = self.running.is_empty()
            || self.running.len() + request.n <= self.limits.batch && self.reserved + reserved <= self.pages;
        if self.prefilling.is_some() || !fits {
            return;
        }
        self.waiting.pop_front();
        self.reserved += reserved;
        self.prefilling = Some(Sequence {
            request: next,
            sample: 0,
            tokens: request.prompt.clone(),
            prompt: request.prompt.len(),
            cached: 0,
            table: Table::default(),
            reserved,
            logprobs: Vec::new(),
            ending: Ending::new(self.tokenizer, &request.stop),
        });
    }

    /// One forward pass; returns the number of tokens made.
    fn step(&mut self) -> Result<usize> {
        self.admit();
        let step = self.next_step()?;
        self.cache.copy_shared(&self.stepper.cx)?;
        let choices = self.stepper.run(&mut self.cache, &step)?;
        for (sequence, choice) in self.running.iter_mut().zip(&choices) {
            sequence.tokens.push(choice.token as u32);
            sequence.logprobs.push(choice.logprob);
        }
        self.retire();
        Ok(choices.len())
    }

    /// The next token of every running sequence and a chunk of the prompt in prefill, which becomes its samples when
    /// that was the last.
    fn next_step(&mut self) -> Result<Step> {
        let mut step = Step::default();
        for (i, sequence) in self.running.iter_mut().enumerate() {
            step.last.push(step.rows() as i32);
            push_rows(&mut step, &mut self.cache, sequence, i, 1)?;
        }
        if let Some(sequence) = &mut self.prefilling {
            push_rows(&mut step, &mut self.cache, sequence, self.running.len(), self.limits.prefill)?;
            if sequence.cached == sequence.prompt {
                step.last.push(step.rows() as i32 - 1);
            }
        }
        step.tables = self.tables();
        self.fork_prefilled();
        // Samples fresh from one prompt share its row of logits.
        step.each = (0..self.running.len()).map(|i| i.min(step.last.len() - 1) as i32).collect();
        step.sampling = self.sampling()?;
        Ok(step)
    }

    /// Block tables of the running sequences and the one in prefill, padded with −1.
    fn tables(&self) -> Vec<i32> {
        let tables = self.running.iter().chain(&self.prefilling).map(|sequence| &sequence.table.pages);
        let mut flat = Vec::new();
        for pages in tables {
            let end = flat.len() + self.width;
            flat.extend(pages.iter().map(|&page| page as i32));
            flat.resize(end, -1);
        }
        flat
    }

    /// A prompt whose last token is cached becomes its samples.
    fn fork_prefilled(&mut self) {
        let Some(prompt) = self.prefilling.take_if(|s| s.cached == s.prompt) else { return };
        let request = &self.requests[prompt.request];
        for sample in 0..request.n {
            self.running.push(Sequence {
                request: prompt.request,
                sample,
                tokens: prompt.tokens.clone(),
                prompt: prompt.prompt,
                cached: prompt.cached,
                table: self.cache.fork(&prompt.table),
                reserved: prompt.reserved,
                logprobs: Vec::new(),
                ending: Ending::new(self.tokenizer, &request.stop),
            });
        }
        self.cache.release(prompt.table);
    }

    /// How the next token of every running sequence is drawn.
    fn sampling(&self) -> Result<Words> {
        let penalized = |s: &Sequence| penalizes(&self.requests[s.request]);
        let previous = |s: &Sequence| match penalized(s) {
            true => s.tokens.iter().map(|&t| t as i32).collect(),
            false => Vec::new(),
        };
        let previous: Vec<Vec<i32>> = self.running.iter().map(previous).collect();
        let params = self.running.iter().zip(&previous).map(|(s, p)| self.params(s, p));
        Words::new(&params.collect::<Vec<_>>(), self.model.config().vocab)
    }

    fn params<'p>(&self, sequence: &Sequence, previous: &'p [i32]) -> Params<'p> {
        let s = &self.requests[sequence.request].sampling;
        Params {
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
            previous,
            key: Key { seed: s.seed, step: sequence.tokens.len() as u32, site: sequence.sample as u32 },
        }
    }

    /// Takes finished sequences out.
    fn retire(&mut self) {
        let eos = &self.model.config().eos;
        let mut still = Vec::with_capacity(self.running.len());
        for mut sequence in std::mem::take(&mut self.running) {
            let request = &self.requests[sequence.request];
            let made = sequence.tokens.len() - sequence.prompt;
            let token = sequence.tokens[sequence.tokens.len() - 1];
            let ended = request.stop_at_eos && eos.contains(&token);
            let finish = if ended || sequence.ending.push(token) {
                Some(Finish::Stop)
            } else {
                (made >= request.max_tokens).then_some(Finish::Length)
            };
            match finish {
                None => still.push(sequence),
                Some(finish) => {
                    self.cache.release(sequence.table);
                    self.done[sequence.request][sequence.sample] = Some(Completion {
                        text: sequence.ending.finish(finish),
                        token_ids: sequence.tokens[sequence.prompt..].to_vec(),
                        logprobs: sequence.logprobs,
                        finish,
                    });
                    if self.done[sequence.request].iter().all(Option::is_some) {
                        self.reserved -= sequence.reserved;
                    }
                }
            }
        }
        self.running = still;
    }
}

/// Appends up to `most` uncached tokens of a sequence as rows, their slots made ready.
fn push_rows(
    step: &mut Step,
    cache: &mut Cache,
    sequence: &mut Sequence,
    index: usize,
    most: usize,
) -> Result<()> {
    let to = sequence.tokens.len().min(sequence.cached + most);
    for position in sequence.cached..to {
        let slot = cache.slot(&mut sequence.table, position)?;
        step.push(sequence.tokens[position], position, index, slot);
    }
    sequence.cached = to;
    Ok(())
}

/// Whether a request's drawing looks at its tokens so far.
fn penalizes(request: &Request) -> bool {
    request.sampling.repetition_penalty != 1.0
}

/// Pages that a request can come to hold: its prompt's, and for each sample its own copy of the prompt's last page
/// and its answer.
fn pages_of_request(request: &Request, page_size: usize) -> usize {
    request.prompt.len().div_ceil(page_size) + request.n * (request.max_tokens.div_ceil(page_size) + 1)
}
