//! One call of any API: prompts and parameters in, events out.

use crate::app::App;
use crate::drain::InFlight;
use crate::engine_thread::{Running, StartError, Update};
use crate::error::ApiError;
use crate::infill::EncodedPrompt;
use crate::models::ServedModel;
use codelsi_model::generate::{
    AddError, Event, FinishReason, GenerationRequest, SamplingParams, TokenLogprob,
};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Most samples of a call, over all of its prompts.
const MAX_SAMPLES: usize = 1024;

/// Number of new tokens of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokens {
    /// This many, which must fit.
    Exactly(usize),
    /// This many, or what the context leaves.
    AtMost(usize),
    /// All that the context leaves.
    Context,
}

/// A call's parameters, in no API's terms.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Samples of each prompt.
    pub n: usize,
    pub max_tokens: MaxTokens,
    pub sampling: SamplingParams,
    pub stop: Vec<String>,
    pub top_logprobs: usize,
    pub prompt_logprobs: bool,
    /// Time for a text after its first token, if it has a line break.
    pub time_limit: Option<Duration>,
}

impl Parameters {
    /// One sample of this length.
    pub fn new(sampling: SamplingParams, max_tokens: MaxTokens, stop: Vec<String>) -> Self {
        Parameters {
            n: 1,
            max_tokens,
            sampling,
            stop,
            top_logprobs: 0,
            prompt_logprobs: false,
            time_limit: None,
        }
    }
}

/// A call that runs; dropped, it is cancelled.
pub struct Generation {
    running: Running,
    tally: Tally,
    time_limit: Option<Duration>,
    has_line_break: bool,
    over: bool,
    _in_flight: InFlight,
}

/// Counts and times of a call so far.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Tokens of each prompt.
    pub prompts: Vec<usize>,
    /// Prompt tokens that the prefix cache held.
    pub cached: usize,
    pub generated: usize,
    samples: usize,
    unfinished: usize,
    started: Instant,
    prefilled: Option<Instant>,
    ended: Option<Instant>,
    first_token: Option<Instant>,
}

impl Tally {
    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts.iter().sum()
    }

    /// Samples of all prompts.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Time since the call came.
    pub fn total(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now) - self.started
    }

    /// Time up to the end of the first prefill.
    pub fn prefill(&self) -> Duration {
        self.prefilled.map_or(self.total(), |prefilled| prefilled - self.started)
    }

    /// Time of the new tokens.
    pub fn decode(&self) -> Duration {
        self.total() - self.prefill()
    }

    fn count(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::Prefilled { cached, .. } => {
                self.cached += cached;
                self.prefilled.get_or_insert(now);
            }
            Event::Token { .. } => {
                self.generated += 1;
                self.first_token.get_or_insert(now);
            }
            Event::Finished { .. } => {
                self.unfinished -= 1;
                if self.unfinished == 0 {
                    self.ended = Some(now);
                }
            }
        }
    }
}

impl Generation {
    /// Starts a call.
    ///
    /// # Errors
    /// When a prompt does not fit the model, or the server takes no more.
    pub async fn start(
        app: &App,
        model: &ServedModel,
        prompts: Vec<EncodedPrompt>,
        parameters: &Parameters,
        client: u64,
    ) -> Result<Self, ApiError> {
        let samples = prompts.len().saturating_mul(parameters.n);
        if samples > MAX_SAMPLES {
            let message = format!("{samples} samples in one request; {MAX_SAMPLES} are allowed");
            return Err(ApiError::invalid(message));
        }
        let in_flight = app.drain.enter().ok_or_else(ApiError::draining)?;
        if app.log_prompts {
            let texts: Vec<String> = prompts.iter().map(|p| app.tokenizer().decode(&p.tokens)).collect();
            tracing::info!(model = model.id, prompts = ?texts);
        }
        let started = Instant::now();
        let lengths = prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        let requests = prompts.into_iter().map(|prompt| request(app, model, prompt, parameters, client));
        let running = app.engine.add(requests.collect::<Result<_, _>>()?).await.map_err(|e| match e {
            StartError::Refused(AddError::Invalid(error)) => ApiError::invalid(error),
            StartError::Refused(AddError::Overloaded(error)) => ApiError::overloaded(error),
            StartError::Gone => ApiError::internal("the engine has ended; see the server's log"),
        })?;
        let tally = Tally {
            prompts: lengths,
            cached: 0,
            generated: 0,
            samples,
            unfinished: samples,
            started,
            prefilled: None,
            ended: None,
            first_token: None,
        };
        let time_limit = parameters.time_limit;
        Ok(Generation {
            running,
            tally,
            time_limit,
            has_line_break: false,
            over: false,
            _in_flight: in_flight,
        })
    }

    /// Counts and times so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Polls for the next update; `None` after the last sample's end or a failure.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        if self.over {
            return Poll::Ready(None);
        }
        let update = match self.running.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(update) => update.unwrap_or_else(|| Update::Failed("the engine has ended".into())),
        };
        let update = match update {
            Update::Event(prompt, event) => Update::Event(prompt, self.limit(event)),
            failed => failed,
        };
        match &update {
            Update::Event(_, event) => self.tally.count(event),
            Update::Failed(_) => self.over = true,
        }
        self.over |= self.tally.unfinished == 0;
        Poll::Ready(Some(update))
    }

    /// Replaces a token after the time limit by the end of its sample.
    fn limit(&mut self, event: Event) -> Event {
        let (Some(limit), Event::Token { text, .. }) = (self.time_limit, &event) else { return event };
        self.has_line_break |= text.contains('\n');
        let late = self.tally.first_token.is_some_and(|first| first.elapsed() > limit);
        match event {
            Event::Token { request, sample, text, .. } if late && self.has_line_break => {
                self.running.cancel();
                Event::Finished { request, sample, reason: FinishReason::Length, text }
            }
            event => event,
        }
    }

    /// Waits for the next update; `None` after the last.
    async fn next(&mut self) -> Option<Update> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits for all samples.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn collect(mut self) -> Result<Outcome, ApiError> {
        let mut prompts: Vec<PromptOutcome> =
            self.tally.prompts.iter().map(|_| PromptOutcome::default()).collect();
        while let Some(update) = self.next().await {
            match update {
                Update::Event(prompt, event) => prompts[prompt].add(event),
                Update::Failed(message) => return Err(ApiError::internal(message)),
            }
        }
        Ok(Outcome { prompts, tally: self.tally.clone() })
    }
}

/// Everything that a call produced.
pub struct Outcome {
    pub prompts: Vec<PromptOutcome>,
    pub tally: Tally,
}

/// The samples of a prompt.
#[derive(Default)]
pub struct PromptOutcome {
    pub samples: Vec<Sample>,
    /// Log-probabilities of the prompt's tokens, where asked for.
    pub logprobs: Vec<Option<TokenLogprob>>,
}

/// A finished text.
#[derive(Default)]
pub struct Sample {
    pub text: String,
    pub tokens: Vec<TokenLogprob>,
    pub reason: Option<FinishReason>,
}

impl PromptOutcome {
    fn add(&mut self, event: Event) {
        match event {
            Event::Prefilled { prompt, .. } => self.logprobs = prompt,
            Event::Token { sample, token, text, .. } => {
                let sample = self.sample(sample);
                sample.text.push_str(&text);
                sample.tokens.push(token);
            }
            Event::Finished { sample, reason, text, .. } => {
                let sample = self.sample(sample);
                sample.text.push_str(&text);
                sample.reason = Some(reason);
            }
        }
    }

    fn sample(&mut self, index: usize) -> &mut Sample {
        if self.samples.len() <= index {
            self.samples.resize_with(index + 1, Sample::default);
        }
        &mut self.samples[index]
    }
}

impl Outcome {
    /// The only sample of the only prompt.
    pub fn single(mut self) -> (Sample, Tally) {
        let sample = self.prompts.pop().and_then(|mut prompt| prompt.samples.pop());
        (sample.unwrap_or_default(), self.tally)
    }
}

/// Returns the engine's request for one prompt.
fn request(
    app: &App,
    model: &ServedModel,
    prompt: EncodedPrompt,
    parameters: &Parameters,
    client: u64,
) -> Result<GenerationRequest, ApiError> {
    let (length, context) = (prompt.tokens.len(), app.max_model_len);
    if length == 0 {
        return Err(ApiError::invalid("the prompt has no token"));
    }
    let vocab = app.model.checkpoint.config().vocab;
    if let Some(id) = prompt.tokens.iter().find(|&&id| id as usize >= vocab) {
        return Err(ApiError::invalid(format!("prompt token {id} is outside the vocabulary of {vocab}")));
    }
    let room = context.saturating_sub(length);
    let (wanted, max_tokens) = match parameters.max_tokens {
        MaxTokens::Exactly(tokens) => (tokens, tokens),
        MaxTokens::AtMost(tokens) => (tokens.min(1), tokens.min(room)),
        MaxTokens::Context => (1, room),
    };
    if wanted > room {
        return Err(ApiError::too_long(format!(
            "{length} prompt tokens and {wanted} new ones exceed the context of {context} tokens; shorten the prompt \
             or ask for fewer"
        )));
    }
    Ok(GenerationRequest {
        n: parameters.n,
        sampling: parameters.sampling.clone(),
        stop: parameters.stop.clone(),
        stop_token_ids: prompt.stop_token_ids,
        adapter: model.adapter,
        client,
        top_logprobs: parameters.top_logprobs,
        prompt_logprobs: parameters.prompt_logprobs,
        ..GenerationRequest::greedy(prompt.tokens, max_tokens)
    })
}
