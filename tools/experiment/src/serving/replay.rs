//! Replay of arrivals on an engine. It is an open loop: an engine that is late does not delay those who ask.

use super::arrivals::Arrival;
use codelsi_engine::{Result, interrupt};
use codelsi_model::generate::{
    AdapterId, AddError, Engine, EngineStats, Event, GenerationRequest, RequestId, SamplingParams,
};
use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Service of a load.
#[derive(Clone, Debug, Default)]
pub struct ServingReport {
    /// Requests that were answered, and those that the engine refused.
    pub requests: usize,
    pub refused: usize,
    /// Seconds from the first arrival to the last token.
    pub seconds: f64,
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    /// Prompt tokens that the prefix cache held.
    pub prefix_hit_tokens: usize,
    /// Most pages in use at one time, and all pages of the cache.
    pub peak_pages: usize,
    pub pages: usize,
    /// Most requests that ran and that waited at one time.
    pub peak_running: usize,
    pub peak_waiting: usize,
    pub preemptions: u64,
    /// Peak memory in bytes.
    pub peak_bytes: usize,
    /// Seconds from a request's arrival to its first token, of each request.
    pub first_token: Percentiles,
    /// Seconds for each token after the first, of each request of two tokens or more.
    pub output_token: Percentiles,
}

/// The 50th, 95th and 99th percentile; 0 where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Percentiles {
    /// Returns the percentiles of some numbers by nearest rank.
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (numbers.len() * percent).div_ceil(100).max(1);
            numbers.get(rank - 1).copied().unwrap_or(0.0)
        };
        Percentiles { p50: at(50), p95: at(95), p99: at(99) }
    }
}

/// Replays arrivals and measures how they are served. `adapters` are those that they count; `progress` gets the number
/// of requests that a step ended.
///
/// # Errors
/// When a request does not fit the model, the device fails, or a signal wished that the process ends.
pub fn replay(
    engine: &mut Engine,
    arrivals: Vec<Arrival>,
    adapters: &[AdapterId],
    mut progress: impl FnMut(usize),
) -> Result<ServingReport> {
    let before = engine.stats();
    let mut replay = Replay {
        started: Instant::now(),
        times: HashMap::new(),
        report: ServingReport { pages: before.pages_used + before.pages_free, ..ServingReport::default() },
    };
    let mut waiting = arrivals.into_iter().peekable();
    while waiting.peek().is_some() || engine.has_work() {
        interrupt::check("the measurement is not kept")?;
        while let Some(arrival) = waiting.next_if(|arrival| arrival.at <= replay.now()) {
            replay.admit(engine, arrival, adapters)?;
        }
        if engine.has_work() {
            progress(replay.step(engine)?);
        } else {
            let next = waiting.peek().map_or(0.0, |arrival| arrival.at - replay.now());
            sleep(Duration::from_secs_f64(next.clamp(0.0, 0.1)));
        }
    }
    Ok(replay.finish(&before, &engine.stats()))
}

/// Times of one request, in seconds after the start.
struct Times {
    arrived: f64,
    first: Option<f64>,
    last: f64,
    tokens: usize,
}

/// A replay in progress.
struct Replay {
    started: Instant,
    times: HashMap<RequestId, Times>,
    report: ServingReport,
}

impl Replay {
    /// Seconds after the start.
    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn admit(&mut self, engine: &mut Engine, arrival: Arrival, adapters: &[AdapterId]) -> Result<()> {
        let seed = self.times.len() as u64;
        let (arrived, tokens) = (arrival.at, arrival.prompt.len());
        let request = GenerationRequest {
            sampling: SamplingParams { temperature: 0.8, top_p: 0.95, seed, ..SamplingParams::default() },
            stop_at_eos: false,
            adapter: arrival.adapter.map(|index| adapters[index]),
            ..GenerationRequest::greedy(arrival.prompt, arrival.tokens)
        };
        match engine.add(request) {
            Ok(id) => {
                self.report.prompt_tokens += tokens;
                self.times.insert(id, Times { arrived, first: None, last: arrived, tokens: 0 });
                Ok(())
            }
            Err(AddError::Overloaded(_)) => {
                self.report.refused += 1;
                Ok(())
            }
            Err(AddError::Invalid(e)) => Err(e),
        }
    }

    /// Runs a step of the engine; returns the number of requests that it ended.
    fn step(&mut self, engine: &mut Engine) -> Result<usize> {
        let (events, now) = (engine.step()?.into_events()?, self.now());
        let (stats, report) = (engine.stats(), &mut self.report);
        report.peak_pages = report.peak_pages.max(stats.pages_used);
        report.peak_running = report.peak_running.max(stats.running);
        report.peak_waiting = report.peak_waiting.max(stats.waiting);
        for event in &events {
            let Event::Token { request, .. } = event else { continue };
            if let Some(times) = self.times.get_mut(request) {
                times.first.get_or_insert(now);
                times.last = now;
                times.tokens += 1;
            }
        }
        Ok(events.iter().filter(|event| matches!(event, Event::Finished { .. })).count())
    }

    fn finish(self, before: &EngineStats, after: &EngineStats) -> ServingReport {
        let seconds = self.now();
        let times: Vec<Times> = self.times.into_values().collect();
        let first = times.iter().filter_map(|t| Some(t.first? - t.arrived));
        let later = times.iter().filter(|t| t.tokens > 1);
        let each = later.filter_map(|t| Some((t.last - t.first?) / (t.tokens - 1) as f64));
        ServingReport {
            requests: times.len(),
            seconds,
            generated_tokens: (after.generated_tokens - before.generated_tokens) as usize,
            prefix_hit_tokens: (after.prefix_hit_tokens - before.prefix_hit_tokens) as usize,
            preemptions: after.preemptions - before.preemptions,
            first_token: Percentiles::of(first.collect()),
            output_token: Percentiles::of(each.collect()),
            ..self.report
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_were_measured() {
        let percentiles = Percentiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(percentiles, Percentiles { p50: 100.0, p95: 190.0, p99: 198.0 });
        assert_eq!(Percentiles::of(vec![3.0]), Percentiles { p50: 3.0, p95: 3.0, p99: 3.0 });
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}
