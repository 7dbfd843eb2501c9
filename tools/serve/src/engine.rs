//! Temporary stand-in for model::generate's Engine, with its signatures.
use codelsi_engine::{Device, Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::generate::{AdapterId, FinishReason, GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_model::tokenizer::Tokenizer;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
pub struct AdapterSlots {
    pub count: usize,
    pub rank: usize,
}
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    pub scheduler: SchedulerConfig,
    pub pages: usize,
    pub prefix_cache: bool,
    pub max_waiting: usize,
    pub max_per_client: usize,
    pub adapters: AdapterSlots,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub id: u32,
    pub logprob: f32,
    pub top: Vec<(u32, f32)>,
}
#[derive(Clone, Debug)]
pub enum Event {
    Prefilled { request: RequestId, cached: usize, prompt: Vec<Option<TokenLogprobs>> },
    Token { request: RequestId, sample: usize, token: TokenLogprobs, text: String },
    Finished { request: RequestId, sample: usize, reason: FinishReason, text: String },
}
pub enum AddError {
    Invalid(Error),
    Overloaded(Error),
}
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineStats {
    pub waiting: usize,
    pub running: usize,
    pub pages_used: usize,
    pub pages_free: usize,
    pub pages_cached: usize,
    pub prefix_hit_tokens: u64,
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
    pub preemptions: u64,
}
pub struct Engine<'m> {
    device: Device,
    model: &'m Llama,
    tokenizer: Option<&'m Tokenizer>,
    config: EngineConfig,
    queue: VecDeque<(RequestId, GenerationRequest)>,
    next: u64,
    stats: EngineStats,
}
impl<'m> Engine<'m> {
    pub fn new(
        device: &Device,
        model: &'m Llama,
        tokenizer: Option<&'m Tokenizer>,
        config: EngineConfig,
    ) -> Result<Self> {
        Ok(Engine { device: device.clone(), model, tokenizer, config, queue: VecDeque::new(), next: 0, stats: EngineStats::default() })
    }
    pub fn add(&mut self, request: GenerationRequest) -> std::result::Result<RequestId, AddError> {
        if self.queue.len() >= self.config.max_waiting {
            return Err(AddError::Overloaded(Error::new("too many wait")));
        }
        if request.prompt.len() + request.max_tokens > self.model.config().max_positions + 1 {
            return Err(AddError::Invalid(Error::new("too long")));
        }
        self.next += 1;
        self.queue.push_back((RequestId(self.next), request));
        Ok(RequestId(self.next))
    }
    pub fn cancel(&mut self, id: RequestId) {
        self.queue.retain(|(other, _)| *other != id);
    }
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }
    pub fn step(&mut self) -> Result<Vec<Event>> {
        let Some((request, r)) = self.queue.pop_front() else { return Ok(Vec::new()) };
        let none = |id: &u32| Some(TokenLogprobs { id: *id, logprob: -1.0, top: vec![] });
        let prompt = if r.prompt_logprobs { r.prompt.iter().map(none).collect() } else { vec![] };
        let mut events = vec![Event::Prefilled { request, cached: 0, prompt }];
        if r.max_tokens == 0 {
            for sample in 0..r.n {
                events.push(Event::Finished { request, sample, reason: FinishReason::Length, text: String::new() });
            }
            return Ok(events);
        }
        let all = generate(&self.device, self.model, self.tokenizer, &[r], self.config.scheduler, &mut |_| {})?;
        for (sample, c) in all.into_iter().flatten().enumerate() {
            for (&id, &logprob) in c.token_ids.iter().zip(&c.logprobs) {
                let token = TokenLogprobs { id, logprob, top: vec![(id, logprob)] };
                events.push(Event::Token { request, sample, token, text: String::new() });
            }
            events.push(Event::Finished { request, sample, reason: c.finish_reason, text: c.text });
        }
        Ok(events)
    }
    pub fn stats(&self) -> EngineStats {
        EngineStats { waiting: self.queue.len(), pages_free: self.config.pages, ..self.stats }
    }
    pub fn load_adapter(&mut self, _: &Adapter) -> Result<AdapterId> {
        Err(Error::new("no adapters yet"))
    }
    pub fn unload_adapter(&mut self, _: AdapterId) {}
}
