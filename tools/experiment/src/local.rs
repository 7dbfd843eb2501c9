//! Our own models, as evaluation asks for them.

use crate::loaded::Loaded;
use crate::placement::Placement;
use codelsi_engine::Result;
use codelsi_engine::memory::Usage;
use codelsi_eval::sampling::{CompletionRequest, Generator};
use codelsi_launch::on_all_ranks;
use codelsi_model::generate::{GenerationRequest, SamplingParams, SchedulerConfig, generate};
use std::path::Path;
use std::sync::mpsc::channel;

/// Answers with paged, continuously batched generation: each rank its share, or all together where they share the model.
pub struct LocalModel {
    ranks: Vec<Loaded>,
    /// Whether the memory plan was shown.
    planned: bool,
}

impl LocalModel {
    /// Loads every rank's model, or part of it.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(folder: &Path, placement: Placement) -> Result<Self> {
        let splits = placement.open()?.into_iter();
        let splits = splits.map(|split| (split.comm().clone(), split)).collect();
        let ranks = on_all_ranks(splits, |split| Loaded::on(split, folder, placement.compute, None))?;
        Ok(LocalModel { ranks, planned: false })
    }

    /// Puts an adapter on, replacing any other.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn put_on(&mut self, folder: &Path) -> Result<()> {
        self.ranks.iter_mut().try_for_each(|loaded| loaded.put_on(folder))
    }
}

impl Generator for LocalModel {
    /// Shows the memory plan of the first questions, and the peak beside it.
    fn generate(
        &mut self,
        asks: &[CompletionRequest],
        tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        let planned = match std::mem::replace(&mut self.planned, true) {
            true => None,
            false => Some(self.plan(asks)?),
        };
        planned.iter().for_each(|planned| eprintln!("memory plan:\n{planned}"));
        let answers = self.answers(asks, tokens)?;
        planned.iter().for_each(|planned| eprintln!("{}", self.ranks[0].peak(planned)));
        Ok(answers)
    }
}

impl LocalModel {
    /// What rank 0's share of the questions takes.
    fn plan(&self, asks: &[CompletionRequest]) -> Result<Usage> {
        let loaded = &self.ranks[0];
        let requests = asks.iter().take(self.share(asks)).map(|ask| request(loaded, ask));
        loaded.plan(&requests.collect::<Result<Vec<_>>>()?, SchedulerConfig::default())
    }

    /// Questions that a rank answers.
    fn share(&self, asks: &[CompletionRequest]) -> usize {
        let shares = if self.in_step() { 1 } else { self.ranks.len() };
        asks.len().div_ceil(shares).max(1)
    }

    /// Whether every rank is needed for every answer.
    fn in_step(&self) -> bool {
        self.ranks[0].model.rank_layout().is_lockstep()
    }

    fn answers(&self, asks: &[CompletionRequest], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
        if let [alone] = &self.ranks[..] {
            return answer(alone, asks, tokens);
        }
        let in_step = self.in_step();
        std::thread::scope(|scope| {
            let (heard, counts) = channel();
            // A text depends on its question alone, so who answers it does not matter.
            let shares: Vec<&[CompletionRequest]> =
                if in_step { vec![asks; self.ranks.len()] } else { asks.chunks(self.share(asks)).collect() };
            let ranks = self.ranks.iter().zip(shares).enumerate().map(|(rank, (loaded, asks))| {
                let told = (rank == 0 || !in_step).then(|| heard.clone());
                (loaded.model.rank_layout().comm().clone(), (loaded, asks, told))
            });
            let ranks = ranks.collect();
            drop(heard);
            let answers = scope.spawn(move || {
                on_all_ranks(ranks, |(loaded, asks, told)| {
                    // Nobody may listen any more.
                    answer(loaded, asks, &mut |new| told.iter().for_each(|told| told.send(new).unwrap_or(())))
                })
            });
            counts.into_iter().for_each(tokens);
            let answers = answers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(if in_step { answers.into_iter().take(1).collect::<Vec<_>>() } else { answers }.concat())
        })
    }
}

fn answer(
    loaded: &Loaded,
    asks: &[CompletionRequest],
    tokens: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<String>>> {
    let Loaded { model, tokenizer, .. } = loaded;
    let requests: Vec<GenerationRequest> =
        asks.iter().map(|ask| request(loaded, ask)).collect::<Result<_>>()?;
    let made =
        generate(loaded.device(), model, Some(tokenizer), &requests, SchedulerConfig::default(), tokens)
            .map_err(|e| loaded.blame(e))?;
    Ok(made.into_iter().map(|samples| samples.into_iter().map(|c| c.text).collect()).collect())
}

/// The prompt is cut from the left where it leaves no room for an answer.
fn request(loaded: &Loaded, ask: &CompletionRequest) -> Result<GenerationRequest> {
    let mut prompt = loaded.tokenizer.encode(&ask.prompt, true)?;
    let positions = loaded.checkpoint.config().max_positions;
    let max_tokens = ask.max_tokens.min(positions / 2);
    let room = positions - max_tokens;
    if prompt.len() > room {
        prompt.drain(1..prompt.len() - room + 1);
    }
    Ok(GenerationRequest {
        prompt,
        n: ask.n,
        max_tokens,
        sampling: SamplingParams {
            temperature: ask.temperature,
            top_p: ask.top_p,
            seed: ask.seed,
            ..SamplingParams::default()
        },
        stop: ask.stop.clone(),
        stop_at_eos: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::DType;
    use codelsi_launch::{DeviceChoice, RankOptions};
    use codelsi_model::parallel::Layout;
    use codelsi_model::synthetic;

    #[test]
    fn ranks_answer_as_one_model_does() {
        let folder = tempfile::tempdir().unwrap();
        synthetic::write_random_model(folder.path(), &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {})
            .unwrap();
        let ask = |i: usize| CompletionRequest {
            prompt: format!("function f{i}"),
            message: None,
            n: 2,
            max_tokens: 6,
            temperature: 1.0,
            top_p: 0.9,
            seed: i as u64,
            stop: Vec::new(),
        };
        let asks: Vec<CompletionRequest> = (0..5).map(ask).collect();
        let answers = |ranks: u16, layout: Layout| {
            let placement = Placement {
                device: DeviceChoice::Cpu,
                compute: Some(DType::F32),
                ranks: RankOptions { count: Some(ranks), timeout: None },
                layout,
            };
            let mut heard = 0;
            let answers = LocalModel::open(folder.path(), placement)
                .unwrap()
                .generate(&asks, &mut |new| heard += new)
                .unwrap();
            (answers, heard)
        };
        let alone = answers(1, Layout::Replicate);
        assert!(alone.0.len() == 5 && alone.1 > 0);
        for ranks in [2, 3, 7] {
            assert_eq!(answers(ranks, Layout::Replicate), alone, "{ranks} ranks");
        }
        for (ranks, layout) in [(2, Layout::Tensor), (2, Layout::Shard), (3, Layout::Shard)] {
            assert_eq!(answers(ranks, layout), alone, "{ranks} ranks, {layout}");
        }
    }
}
