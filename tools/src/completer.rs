//! Our own models, as evaluation asks for them.

use crate::model_args::Loaded;
use codelsi_engine::Result;
use codelsi_eval::evaluate::{Ask, Completer};
use codelsi_model::generate::{Limits, Request, Sampling, generate};

/// Answers with paged, continuously batched generation.
pub struct LocalModel<'a> {
    loaded: &'a Loaded,
}

impl<'a> LocalModel<'a> {
    /// `loaded` with whatever adapter it has on.
    pub fn new(loaded: &'a Loaded) -> Self {
        LocalModel { loaded }
    }

    /// The prompt is cut from the left where it leaves no room for an answer.
    fn request(&self, ask: &Ask) -> Result<Request> {
        let mut prompt = self.loaded.tokenizer.encode(&ask.prompt, true)?;
        let positions = self.loaded.checkpoint.config().max_positions;
        let max_tokens = ask.max_tokens.min(positions / 2);
        let room = positions - max_tokens;
        if prompt.len() > room {
            prompt.drain(1..prompt.len() - room + 1);
        }
        Ok(Request {
            prompt,
            n: ask.n,
            max_tokens,
            sampling: Sampling {
                temperature: ask.temperature,
                top_p: ask.top_p,
                seed: ask.seed,
                ..Sampling::default()
            },
            stop: ask.stop.clone(),
            stop_at_eos: true,
        })
    }
}

impl Completer for LocalModel<'_> {
    fn complete(&mut self, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
        let Loaded { device, model, tokenizer, .. } = self.loaded;
        let requests: Vec<Request> = asks.iter().map(|ask| self.request(ask)).collect::<Result<_>>()?;
        let made = generate(device, model, Some(tokenizer), &requests, Limits::default(), tokens)
            .map_err(|e| self.loaded.blame(e))?;
        Ok(made.into_iter().map(|samples| samples.into_iter().map(|c| c.text).collect()).collect())
    }
}
