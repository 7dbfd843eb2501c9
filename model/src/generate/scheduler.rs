//! Continuous batching: which rows the next step computes (Orca, Yu et al., OSDI 2022; chunked prefill as in
//! Sarathi-Serve, Agrawal et al., arXiv 2403.02310).
//!
//! First come, first served. A step carries the next token of every running sequence and, within a budget of tokens, chunks
//! of the prompts that are not computed yet. When no page is free, the sequence that came last gives up its pages and is
//! computed again later: preemption by recomputation, which changes no bit.

use super::block_manager::BlockManager;
use super::sequence::{RequestId, Sequence};
use std::collections::VecDeque;

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

/// Rows of one sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScheduledRows {
    /// Index of the sequence among those that run.
    pub sequence: usize,
    /// Number of its next tokens that are computed.
    pub rows: usize,
}

/// Waiting and running sequences.
pub(super) struct Scheduler {
    config: SchedulerConfig,
    /// In the order in which they came.
    pub waiting: VecDeque<Sequence>,
    /// In the order in which they were admitted.
    pub running: Vec<Sequence>,
    pub preemptions: u64,
}

impl Scheduler {
    pub fn new(config: SchedulerConfig) -> Self {
        Scheduler { config, waiting: VecDeque::new(), running: Vec::new(), preemptions: 0 }
    }

    pub fn has_work(&self) -> bool {
        !(self.waiting.is_empty() && self.running.is_empty())
    }

    /// Chooses the rows of the next step, and reserves their pages.
    pub fn schedule(&mut self, blocks: &mut BlockManager) -> Vec<ScheduledRows> {
        let mut budget = self.config.prefill_chunk.max(1);
        let (mut scheduled, preemptions) = (Vec::new(), self.preemptions);
        let mut next = 0;
        while next < self.running.len() {
            let rows = rows_of(&self.running[next], budget);
            if rows > 0 && !self.reserve(next, rows, blocks) {
                break;
            }
            budget -= if self.running[next].is_prefill() { rows } else { 0 };
            scheduled.extend((rows > 0).then_some(ScheduledRows { sequence: next, rows }));
            next += 1;
        }
        // What was preempted is the next to come back.
        if self.preemptions == preemptions {
            self.admit(&mut scheduled, budget, blocks);
        }
        scheduled
    }

    /// Reserves the pages of a running sequence's next rows, at the cost of those that came after it; returns false if it
    /// was preempted itself.
    fn reserve(&mut self, index: usize, rows: usize, blocks: &mut BlockManager) -> bool {
        loop {
            let Sequence { table, computed, .. } = &mut self.running[index];
            if blocks.reserve(table, *computed, *computed + rows) {
                return true;
            }
            let Some(mut last) = self.running.pop() else { return false };
            last.preempt(blocks);
            self.waiting.push_front(last);
            self.preemptions += 1;
            if index == self.running.len() {
                return false;
            }
        }
    }

    /// Admits waiting sequences while there is room for their completions, all of their pages and some of their tokens.
    fn admit(&mut self, scheduled: &mut Vec<ScheduledRows>, mut budget: usize, blocks: &mut BlockManager) {
        let mut room = self.config.max_sequences.max(1);
        room = room.saturating_sub(self.running.iter().map(|s| s.samples.len()).sum());
        let mut promised: usize = self.running.iter().map(|s| missing_pages(s, blocks)).sum();
        while budget > 0 && self.waiting.front().is_some_and(|next| next.samples.len() <= room) {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            if !sequence.wants_prompt_logprobs() {
                (sequence.table, sequence.computed) =
                    blocks.lookup(sequence.request.adapter, &sequence.tokens);
            }
            let pages = missing_pages(&sequence, blocks);
            let rows = rows_of(&sequence, budget);
            if promised + pages > blocks.available() && !self.running.is_empty()
                || !blocks.reserve(&mut sequence.table, sequence.computed, sequence.computed + rows)
            {
                sequence.preempt(blocks);
                self.waiting.push_front(sequence);
                return;
            }
            sequence.cached = if sequence.announced { sequence.cached } else { sequence.computed };
            budget -= rows;
            room -= sequence.samples.len();
            promised += missing_pages(&sequence, blocks);
            scheduled.push(ScheduledRows { sequence: self.running.len(), rows });
            self.running.push(sequence);
        }
    }

    /// Removes the sequences of a request, and releases their pages.
    pub fn remove(&mut self, id: RequestId, blocks: &mut BlockManager) {
        self.waiting.retain(|sequence| sequence.id != id);
        for sequence in self.running.extract_if(.., |sequence| sequence.id == id) {
            blocks.release(sequence.table);
        }
    }
}

/// Number of a sequence's next tokens that a step computes within the budget of prompt tokens.
fn rows_of(sequence: &Sequence, budget: usize) -> usize {
    match sequence.is_prefill() {
        true => sequence.pending().min(budget),
        false => 1,
    }
}

/// Number of pages that a sequence lacks for its tokens, and one more for each completion.
fn missing_pages(sequence: &Sequence, blocks: &BlockManager) -> usize {
    let tokens = blocks.pages_of(sequence.tokens.len()).saturating_sub(sequence.table.pages.len());
    tokens + if sequence.is_prefill() { sequence.samples.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter_stack::AdapterId;
    use crate::generate::GenerationRequest;
    use codelsi_engine::rng::RngKey;
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    /// Contents of a slot of the cache: an adapter and all tokens up to its own.
    type Held = (Option<AdapterId>, Vec<u32>);

    /// A scheduler over a model whose next token is a function of the tokens before it.
    struct World {
        scheduler: Scheduler,
        blocks: BlockManager,
        page_size: usize,
        cache: HashMap<usize, Held>,
        requests: BTreeMap<RequestId, Arc<GenerationRequest>>,
        completions: BTreeMap<(RequestId, usize), Vec<u32>>,
    }

    fn next_token(held: &Held, sample: usize) -> u32 {
        let seed = held.1.iter().fold(7, |sum: u64, &t| sum.wrapping_mul(31).wrapping_add(t.into()));
        let key = RngKey { seed, step: held.0.map_or(0, |id| id.0 as u32 + 1), site: sample as u32 };
        key.words(0, 0)[0] % 3
    }

    impl World {
        fn new(config: SchedulerConfig, pages: usize, prefix_cache: bool) -> Self {
            World {
                scheduler: Scheduler::new(config),
                blocks: BlockManager::new(pages, config.page_size, prefix_cache),
                page_size: config.page_size,
                cache: HashMap::new(),
                requests: BTreeMap::new(),
                completions: BTreeMap::new(),
            }
        }

        fn add(&mut self, id: u64, request: GenerationRequest) {
            let (id, request) = (RequestId(id), Arc::new(request));
            self.scheduler.waiting.push_back(Sequence::new(id, &request, 0..request.n));
            self.requests.insert(id, request);
        }

        fn cancel(&mut self, id: RequestId) {
            self.scheduler.remove(id, &mut self.blocks);
            self.requests.remove(&id);
            self.completions.retain(|(request, _), _| *request != id);
        }

        /// Checks that the scheduled rows read what is theirs, and writes them.
        fn step(&mut self) {
            let scheduled = self.scheduler.schedule(&mut self.blocks);
            assert!(!scheduled.is_empty(), "work is waiting, and none was scheduled");
            let copied: Vec<_> = self.blocks.take_copies();
            let held: Vec<_> = copied.iter().map(|(from, _)| self.cache[from].clone()).collect();
            for ((_, to), held) in copied.into_iter().zip(held) {
                self.cache.insert(to, held);
            }
            let mut written = HashMap::new();
            for &ScheduledRows { sequence, rows } in &scheduled {
                let s = &self.scheduler.running[sequence];
                for position in 0..s.computed + rows {
                    let slot = self.blocks.slot(&s.table, position).unwrap();
                    let held: Held = (s.request.adapter, s.tokens[..=position].to_vec());
                    match position < s.computed {
                        true => assert_eq!(self.cache.get(&slot), Some(&held), "{:?} {position}", s.id),
                        false => assert_eq!(written.insert(slot, held), None, "a slot is written once"),
                    }
                }
            }
            self.check_readers(&written);
            self.cache.extend(written);
            let rows: Vec<usize> = scheduled.iter().map(|s| s.rows).collect();
            self.advance(&rows);
            let tables: Vec<_> = self.scheduler.running.iter().map(|s| &s.table).collect();
            self.blocks.check(&tables);
        }

        /// Checks that nobody has computed the slots that are written.
        fn check_readers(&self, written: &HashMap<usize, Held>) {
            for s in &self.scheduler.running {
                for position in 0..s.computed {
                    assert!(!written.contains_key(&self.blocks.slot(&s.table, position).unwrap()));
                }
            }
        }

        /// Takes the results of the rows of the first sequences.
        fn advance(&mut self, rows: &[usize]) {
            for (i, mut s) in std::mem::take(&mut self.scheduler.running).into_iter().enumerate() {
                s.computed += rows.get(i).copied().unwrap_or(0);
                let (adapter, tokens, computed) = (s.request.adapter, s.tokens.clone(), s.computed);
                self.blocks.register(&mut s.table, adapter, &tokens, computed);
                if s.pending() > 0 {
                    self.scheduler.running.push(s);
                    continue;
                }
                for mut fork in s.fork(&mut self.blocks) {
                    let sample = fork.samples.start;
                    fork.tokens.push(next_token(&(adapter, fork.tokens.clone()), sample));
                    if fork.generated() < fork.request.max_tokens {
                        self.scheduler.running.push(fork);
                        continue;
                    }
                    self.blocks.release(fork.table);
                    let completion = fork.tokens[fork.request.prompt.len()..].to_vec();
                    assert_eq!(self.completions.insert((fork.id, sample), completion), None);
                }
            }
        }

        /// Checks every completion against one made alone.
        fn check_completions(&self) {
            for (id, request) in &self.requests {
                for sample in 0..request.n {
                    let mut held = (request.adapter, request.prompt.clone());
                    for _ in 0..request.max_tokens {
                        let next = next_token(&held, sample);
                        held.1.push(next);
                    }
                    assert_eq!(self.completions[&(*id, sample)], held.1[request.prompt.len()..], "{id:?}");
                }
            }
            let held = self.cache.len().div_ceil(self.page_size);
            assert!(held <= self.blocks.pages(), "{held} pages were written");
        }
    }

    /// Random requests that come, are cancelled and are preempted: every row reads its own past, whatever shares its pages.
    #[test]
    fn every_sequence_reads_its_own_past_under_random_arrivals_cancellations_and_preemptions() {
        let (mut preemptions, mut hits) = (0, 0);
        for seed in 0..300 {
            let words = |step| RngKey { seed, step, site: 0 }.words(0, 0).map(|word| word as usize);
            let [page_size, pages, sequences, chunk] = words(0);
            let page_size = 1 + page_size % 5;
            let config = SchedulerConfig {
                max_sequences: 3 + sequences % 6,
                prefill_chunk: 1 + chunk % 12,
                page_size,
                cuda_graphs: false,
            };
            // Enough for the longest request alone, 24 tokens.
            let pages = 24usize.div_ceil(page_size) + pages % 12;
            let mut world = World::new(config, pages, seed % 4 > 0);
            let mut next = 1;
            for step in 1.. {
                let [arrives, size, n, cancelled] = words(step);
                if arrives.is_multiple_of(3) && next <= 30 {
                    let prompt = (0..1 + size % 14).map(|i| (i < size / 16 % 14) as u32).collect();
                    world.add(
                        next,
                        GenerationRequest {
                            n: 1 + n % 3,
                            adapter: [None, Some(AdapterId(3))][n / 4 % 2],
                            ..GenerationRequest::greedy(prompt, 1 + n / 8 % 10)
                        },
                    );
                    next += 1;
                }
                if cancelled.is_multiple_of(17) {
                    world.cancel(RequestId(cancelled as u64 / 17 % next));
                }
                if world.scheduler.has_work() {
                    world.step();
                } else if next > 30 {
                    break;
                }
                hits += world.scheduler.running.iter().filter(|s| s.cached > 0).count();
            }
            world.check_completions();
            assert_eq!(world.blocks.available(), pages);
            preemptions += world.scheduler.preemptions;
        }
        assert!(preemptions > 100 && hits > 1000, "{preemptions} preemptions, {hits} prefix hits");
    }
}
