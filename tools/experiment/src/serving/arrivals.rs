//! Requests that arrive over time: a Poisson process. When, how long, and for which adapter a request is depends on the
//! seed alone, so that two engines can be given the same load.

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::config::ModelConfig;

/// Random numbers of arrivals and of prompts.
const ARRIVAL_SITE: u32 = 0x5E21;
const PROMPT_SITE: u32 = 0x5E22;

/// A pattern of arrivals.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalPattern {
    pub requests: usize,
    /// Mean arrivals a second; 0: all at once.
    pub rate: f64,
    /// Mean tokens of a prompt beyond the shared ones, and of an answer; each is drawn from half to one and a half times it.
    pub prompt: usize,
    pub answer: usize,
    /// Tokens with which all prompts begin, as a system message or a file's beginning.
    pub shared: usize,
    /// Adapters, beside the base, for which requests are drawn evenly.
    pub adapters: usize,
    pub seed: u64,
}

/// A request that arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds after the start.
    pub at: f64,
    pub prompt: Vec<u32>,
    /// Tokens of its answer.
    pub tokens: usize,
    /// Index of its adapter; none: the base.
    pub adapter: Option<usize>,
}

impl ArrivalPattern {
    /// Checks that the longest request fits a model's positions.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (longest, positions) = (self.longest(), config.max_positions);
        match longest <= positions {
            true => Ok(()),
            false => Err(Error::new(format!(
                "a request has up to {longest} tokens, and the model {positions} positions; lower --shared-tokens, \
                 --prompt-tokens or --answer-tokens"
            ))),
        }
    }

    /// Upper limit of a request's tokens.
    pub fn longest(&self) -> usize {
        self.shared.saturating_add(most(self.prompt)).saturating_add(most(self.answer))
    }

    /// Returns the requests in the order of their arrival.
    pub fn arrivals(&self, config: &ModelConfig) -> Vec<Arrival> {
        let mut at = 0.0;
        let arrival = |request| {
            let key = RngKey { seed: self.seed, step: request as u32, site: ARRIVAL_SITE };
            let draw = |what| key.uniform(what, 0) as f64;
            if self.rate > 0.0 {
                // The uniform number is below 1.
                at += -(1.0 - draw(0)).ln() / self.rate;
            }
            let between = |mean: usize, u: f64| {
                let least = least(mean);
                least + (u * (most(mean) - least + 1) as f64) as usize
            };
            let adapter = (draw(3) * (self.adapters + 1) as f64) as usize;
            let own = between(self.prompt, draw(1));
            Arrival {
                at,
                prompt: self.prompt_tokens(config, request as u32, own),
                tokens: between(self.answer, draw(2)),
                adapter: adapter.checked_sub(1),
            }
        };
        (0..self.requests).map(arrival).collect()
    }

    /// Returns the shared tokens and `own` ones of a request, none of them special.
    fn prompt_tokens(&self, config: &ModelConfig, request: u32, own: usize) -> Vec<u32> {
        let special = 3.min(config.vocab - 1) as u32;
        let token = |step: u32, i: usize| {
            let [word, ..] = RngKey { seed: self.seed, step, site: PROMPT_SITE }.words(i as u32, 0);
            special + word % (config.vocab as u32 - special)
        };
        let shared = (0..self.shared).map(|i| token(u32::MAX, i));
        shared.chain((0..own).map(|i| token(request, i))).collect()
    }
}

fn least(mean: usize) -> usize {
    mean.div_ceil(2).max(1)
}

fn most(mean: usize) -> usize {
    (mean + mean / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_model::synthetic;

    const PATTERN: ArrivalPattern =
        ArrivalPattern { requests: 2000, rate: 50.0, prompt: 20, answer: 9, shared: 8, adapters: 2, seed: 5 };

    #[test]
    fn a_pattern_depends_on_its_seed_alone() {
        let config = synthetic::config("tiny").unwrap();
        let arrivals = PATTERN.arrivals(&config);
        assert_eq!(arrivals, PATTERN.arrivals(&config));
        assert_ne!(arrivals, ArrivalPattern { seed: 6, ..PATTERN }.arrivals(&config));
        // The first of many are those of few.
        assert_eq!(arrivals[..9], ArrivalPattern { requests: 9, ..PATTERN }.arrivals(&config));
    }

    #[test]
    fn arrivals_have_the_rate_and_the_lengths_that_were_asked_for() {
        let config = synthetic::config("tiny").unwrap();
        let arrivals = PATTERN.arrivals(&config);
        assert!(arrivals.is_sorted_by(|a, b| a.at <= b.at));
        // 2,000 exponential gaps of 20 ms: a standard error of 0.9 s.
        assert!((arrivals[1999].at - 40.0).abs() < 4.0, "{}", arrivals[1999].at);
        let range = |of: &dyn Fn(&Arrival) -> usize| {
            (arrivals.iter().map(of).min().unwrap(), arrivals.iter().map(of).max().unwrap())
        };
        assert_eq!(range(&|a| a.prompt.len()), (8 + 10, 8 + 30));
        assert_eq!(range(&|a| a.tokens), (5, 13));
        assert!(arrivals.iter().all(|a| a.prompt[..8] == arrivals[0].prompt[..8]));
        assert_ne!(arrivals[0].prompt[8..18], arrivals[1].prompt[8..18]);
        assert!(arrivals.iter().flat_map(|a| &a.prompt).all(|&t| (3..512).contains(&t)));
        for adapter in [None, Some(0), Some(1)] {
            let share = arrivals.iter().filter(|a| a.adapter == adapter).count();
            assert!((560..=780).contains(&share), "{adapter:?}: {share}");
        }
        assert_eq!(PATTERN.longest(), 8 + 30 + 13);
        let at_once = ArrivalPattern { rate: 0.0, ..PATTERN }.arrivals(&config);
        assert!(at_once.iter().all(|a| a.at == 0.0));
    }

    #[test]
    fn a_pattern_beyond_the_positions_is_refused() {
        let config = synthetic::config("tiny").unwrap();
        assert!(PATTERN.check(&config).is_ok());
        let message = ArrivalPattern { prompt: 400, ..PATTERN }.check(&config).unwrap_err().to_string();
        assert!(message.contains("up to 621 tokens, and the model 512 positions"), "{message}");
    }
}
