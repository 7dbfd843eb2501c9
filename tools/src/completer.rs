//! Our own models, as evaluation asks for them.

use crate::model_args::{Loaded, ModelArgs};
use crate::ranks::{RankArgs, pool};
use codelsi_engine::memory::Usage;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::{Ask, Completer};
use codelsi_model::generate::{Limits, Request, Sampling, generate};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// Answers with paged, continuously batched generation; each rank holds the model and answers its share.
pub struct LocalModel {
    ranks: Vec<Loaded>,
    /// Whether the memory plan was shown.
    planned: bool,
}

impl LocalModel {
    /// Loads the model once a rank.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(args: &ModelArgs, ranks: RankArgs) -> Result<Self> {
        let devices = ranks.devices(args.place.device)?.into_iter();
        let ranks = devices.map(|d| Loaded::on(d, args, None)).collect::<Result<_>>()?;
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

impl Completer for LocalModel {
    /// Shows the memory plan of the first questions, and the peak beside it.
    fn complete(&mut self, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
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
    fn plan(&self, asks: &[Ask]) -> Result<Usage> {
        let (loaded, share) = (&self.ranks[0], asks.len().div_ceil(self.ranks.len()).max(1));
        let requests = asks.iter().take(share).map(|ask| request(loaded, ask));
        loaded.plan(&requests.collect::<Result<Vec<_>>>()?, Limits::default())
    }

    fn answers(&self, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
        if let [alone] = &self.ranks[..] {
            return answer(alone, asks, tokens);
        }
        // A text depends on its question alone, so who answers it does not matter.
        let share = asks.len().div_ceil(self.ranks.len()).max(1);
        let one = |rank: usize, asks: &[Ask], heard: Sender<usize>| {
            let mut tokens = |new| heard.send(new).unwrap_or(()); // nobody may listen any more
            pool(self.ranks.len())?.install(|| answer(&self.ranks[rank], asks, &mut tokens))
        };
        std::thread::scope(|scope| {
            let (heard, counts) = channel();
            let shares = asks.chunks(share).enumerate();
            let ranks: Vec<_> = shares
                .map(|(rank, asks)| {
                    let (one, heard) = (&one, heard.clone());
                    scope.spawn(move || one(rank, asks, heard))
                })
                .collect();
            drop(heard);
            counts.into_iter().for_each(tokens);
            let answers = ranks.into_iter().enumerate().map(|(rank, answers)| {
                let panicked = |_| Err(Error::new("panicked"));
                answers.join().unwrap_or_else(panicked).map_err(|e| e.at(format!("rank {rank}")))
            });
            Ok(answers.collect::<Result<Vec<_>>>()?.concat())
        })
    }
}

fn answer(loaded: &Loaded, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
    let Loaded { device, model, tokenizer, .. } = loaded;
    let requests: Vec<Request> = asks.iter().map(|ask| request(loaded, ask)).collect::<Result<_>>()?;
    let made = generate(device, model, Some(tokenizer), &requests, Limits::default(), tokens)
        .map_err(|e| loaded.blame(e))?;
    Ok(made.into_iter().map(|samples| samples.into_iter().map(|c| c.text).collect()).collect())
}

/// The prompt is cut from the left where it leaves no room for an answer.
fn request(loaded: &Loaded, ask: &Ask) -> Result<Request> {
    let mut prompt = loaded.tokenizer.encode(&ask.prompt, true)?;
    let positions = loaded.checkpoint.config().max_positions;
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use codelsi_model::synthetic;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        ranks: RankArgs,
    }

    #[test]
    fn replicas_answer_as_one_model_does() {
        let folder = tempfile::tempdir().unwrap();
        synthetic::make(folder.path(), &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {}).unwrap();
        let ask = |i: usize| Ask {
            prompt: format!("function f{i}"),
            n: 2,
            max_tokens: 6,
            temperature: 1.0,
            top_p: 0.9,
            seed: i as u64,
            stop: Vec::new(),
        };
        let asks: Vec<Ask> = (0..5).map(ask).collect();
        let answers = |ranks: &str| {
            let model = folder.path().to_str().unwrap();
            let cli = Cli::parse_from(["codelsi", "--model", model, "--device", "cpu", "--ranks", ranks]);
            let mut heard = 0;
            let answers = LocalModel::open(&cli.model, cli.ranks)
                .unwrap()
                .complete(&asks, &mut |new| heard += new)
                .unwrap();
            (answers, heard)
        };
        let alone = answers("1");
        assert!(alone.0.len() == 5 && alone.1 > 0);
        for ranks in ["2", "3", "7"] {
            assert_eq!(answers(ranks), alone, "{ranks} ranks");
        }
    }
}
