//! Continuous batching: each step carries the next token of every running sequence and a chunk of a waiting prompt.

use super::cache::{Cache, Table};
use super::stop::Ending;
use super::{Completion, Finish, Request};
use crate::llama::{Llama, Place};
use crate::tokenizer::Tokenizer;
use codelsi_engine::rng::Key;
use codelsi_engine::{At, Ctx, Device, Label, Result, Tensor};
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{Paged, flash_paged};
use codelsi_kernels::kvstore::kvstore;
use codelsi_kernels::sample::{Params, sample};
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
}

impl Default for Limits {
    fn default() -> Self {
        Limits { batch: 64, prefill: 512, page_size: 16 }
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
    let mut run = Run::new(device, model, tokenizer, requests, limits);
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
    device: &'a Device,
    cx: Ctx,
    model: &'a Llama,
    tokenizer: Option<&'a Tokenizer>,
    requests: &'a [Request],
    limits: Limits,
    cache: Cache,
    /// Pages set aside by admitted requests.
    reserved: usize,
    pages: usize,
    waiting: VecDeque<usize>,
    prefilling: Option<Sequence<'a>>,
    running: Vec<Sequence<'a>>,
    done: Vec<Vec<Option<Completion>>>,
}

/// One row of a step: a token, its place, and whose it is.
struct Row {
    token: i32,
    sequence: i32,
    position: i32,
    slot: i32,
}

impl<'a> Run<'a> {
    fn new(
        device: &'a Device,
        model: &'a Llama,
        tokenizer: Option<&'a Tokenizer>,
        requests: &'a [Request],
        limits: Limits,
    ) -> Self {
        // Enough for a full batch of the largest requests, or for the largest request alone.
        let largest = |need: &dyn Fn(&Request) -> usize| requests.iter().map(need).max().unwrap_or(0);
        let whole = largest(&|r| pages_of_request(r, limits.page_size));
        let each = largest(&|r| (r.prompt.len() + r.max_tokens).div_ceil(limits.page_size) + 1);
        let samples: usize = requests.iter().map(|r| r.n).sum();
        let pages = whole.max(each * limits.batch.min(samples));
        Run {
            device,
            cx: Ctx::inference(device).with_comm(model.split().within_batch()),
            cache: Cache::new(device, model, pages, limits.page_size),
            model,
            tokenizer,
            requests,
            limits,
            reserved: 0,
            pages,
            waiting: (0..requests.len()).filter(|&i| requests[i].n > 0).collect(),
            prefilling: None,
            running: Vec::new(),
            done: requests.iter().map(|r| vec![None; r.n]).collect(),
        }
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
        let mut rows = Vec::new();
        let mut last_rows = Vec::new();
        for (i, sequence) in self.running.iter_mut().enumerate() {
            last_rows.push(rows.len() as i32);
            push_rows(&mut rows, &mut self.cache, sequence, i, 1)?;
        }
        if let Some(sequence) = &mut self.prefilling {
            push_rows(&mut rows, &mut self.cache, sequence, self.running.len(), self.limits.prefill)?;
            if sequence.cached == sequence.prompt {
                last_rows.push(rows.len() as i32 - 1);
            }
        }
        self.cache.copy_shared(&self.cx)?;
        let h = self.forward(&rows)?;
        if last_rows.is_empty() {
            return Ok(0);
        }
        let last = self.ints(&last_rows)?;
        // Gathering rows is what an embedding does.
        let last = embed(&self.cx, &h, &last, h.dtype())?;
        let logits = self.model.logits(&self.cx, &self.model.normed(&self.cx, &last)?)?;
        self.fork_prefilled();
        self.choose(&logits)
    }

    /// The residual stream (rows, C) after the last layer; keys and values go into the cache.
    fn forward(&mut self, rows: &[Row]) -> Result<Tensor> {
        let column = |f: &dyn Fn(&Row) -> i32| self.ints(&rows.iter().map(f).collect::<Vec<_>>());
        let (ids, positions) = (column(&|r| r.token)?, column(&|r| r.position)?);
        let (sequences, slots) = (column(&|r| r.sequence)?, column(&|r| r.slot)?);
        let tables = self.tables()?;
        let place = Place { positions: &positions, rope: self.model.rope(), keys: None };
        let paged = Paged { sequences: &sequences, positions: &positions, tables: &tables };
        let mut h = self.model.embed(&self.cx, &ids)?;
        for (i, layer) in self.model.layers().iter().enumerate() {
            let (k_pages, v_pages) = self.cache.layer(i);
            h = layer.forward(&self.cx, &h, place, 0.0, |cx, q, k, v| {
                kvstore(cx, k_pages, k, &slots)?;
                kvstore(cx, v_pages, v, &slots)?;
                flash_paged(cx, q, k_pages, v_pages, paged, layer.heads())
            })?;
        }
        Ok(h)
    }

    /// Block tables of the running sequences and the one in prefill, padded with −1.
    fn tables(&self) -> Result<Tensor> {
        let tables: Vec<&Table> =
            self.running.iter().chain(&self.prefilling).map(|sequence| &sequence.table).collect();
        let width = tables.iter().map(|t| t.pages.len()).max().unwrap_or(0);
        let mut flat = vec![-1i32; tables.len() * width];
        for (row, table) in flat.chunks_exact_mut(width.max(1)).zip(&tables) {
            row.iter_mut().zip(&table.pages).for_each(|(slot, &page)| *slot = page as i32);
        }
        self.device.tensor(Label::Activations, [tables.len(), width], &flat)
    }

    fn ints(&self, data: &[i32]) -> Result<Tensor> {
        self.device.tensor(Label::Activations, [data.len()], data)
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

    /// Draws the next token of every running sequence. Samples fresh from one prompt share its row of logits.
    fn choose(&mut self, logits: &Tensor) -> Result<usize> {
        let previous: Vec<Vec<i32>> = self
            .running
            .iter()
            .map(|s| match self.requests[s.request].sampling.repetition_penalty {
                1.0 => Vec::new(),
                _ => s.tokens.iter().map(|&t| t as i32).collect(),
            })
            .collect();
        let logits = self.row_each(logits)?;
        let params: Vec<Params> =
            self.running.iter().zip(&previous).map(|(s, p)| self.params(s, p)).collect();
        let choices = sample(&self.cx, &logits, &params)?;
        for (sequence, choice) in self.running.iter_mut().zip(&choices) {
            sequence.tokens.push(choice.token as u32);
            sequence.logprobs.push(choice.logprob);
        }
        self.retire();
        Ok(choices.len())
    }

    /// Repeats the last row of logits for each of the samples that were just forked.
    fn row_each(&self, logits: &Tensor) -> Result<Tensor> {
        let rows = logits.shape()[0];
        if rows == self.running.len() {
            return Ok(logits.clone());
        }
        let index: Vec<i32> = (0..self.running.len()).map(|i| i.min(rows - 1) as i32).collect();
        embed(&self.cx, logits, &self.ints(&index)?, logits.dtype())
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
    rows: &mut Vec<Row>,
    cache: &mut Cache,
    sequence: &mut Sequence,
    index: usize,
    most: usize,
) -> Result<()> {
    let to = sequence.tokens.len().min(sequence.cached + most);
    for position in sequence.cached..to {
        rows.push(Row {
            token: sequence.tokens[position] as i32,
            sequence: index as i32,
            position: position as i32,
            slot: cache.slot(&mut sequence.table, position)? as i32,
        });
    }
    sequence.cached = to;
    Ok(())
}

/// Pages that a request can come to hold: its prompt's, and for each sample its own copy of the prompt's last page
/// and its answer.
fn pages_of_request(request: &Request, page_size: usize) -> usize {
    request.prompt.len().div_ceil(page_size) + request.n * (request.max_tokens.div_ceil(page_size) + 1)
}
