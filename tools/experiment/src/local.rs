//! Models loaded in this process, as generators for evaluation.

use crate::inference_model::InferenceModel;
use crate::output::note;
use crate::placement::Placement;
use codelsi_engine::Result;
use codelsi_engine::memory::Usage;
use codelsi_eval::sampling::{CompletionRequest, Generator};
use codelsi_launch::on_all_ranks;
use codelsi_model::generate::{GenerationRequest, SamplingParams, SchedulerConfig, generate};
use codelsi_model::template::PromptTemplate;
use std::path::Path;
use std::sync::mpsc::channel;

/// A model that generates with paged attention and continuous batching. Ranks divide the requests among them, or
/// process all in lockstep if they share the model.
pub struct LocalModel {
    ranks: Vec<InferenceModel>,
    /// True once the memory plan was shown.
    plan_shown: bool,
}

impl LocalModel {
    /// Loads the model, or its part, on every rank.
    ///
    /// # Errors
    /// When a part does not load or fit.
    pub fn open(folder: &Path, placement: Placement) -> Result<Self> {
        let rank_layouts = placement.open()?.into_iter();
        let rank_layouts =
            rank_layouts.map(|rank_layout| (rank_layout.comm().clone(), rank_layout)).collect();
        let ranks = on_all_ranks(rank_layouts, |rank_layout| {
            let Placement { compute, pack_weights, .. } = placement;
            InferenceModel::open_on_rank(rank_layout, folder, compute, pack_weights, None)
        })?;
        Ok(LocalModel { ranks, plan_shown: false })
    }

    /// Attaches an adapter, replacing any other.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn attach_adapter(&mut self, folder: &Path) -> Result<()> {
        self.ranks.iter_mut().try_for_each(|loaded| loaded.attach_adapter(folder))
    }
}

impl Generator for LocalModel {
    /// Generates, and prints the memory plan and the peak of the first call.
    fn generate(
        &mut self,
        requests: &[CompletionRequest],
        tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        let planned = match std::mem::replace(&mut self.plan_shown, true) {
            true => None,
            false => Some(self.plan_memory(requests)?),
        };
        planned.iter().for_each(|planned| note(&format!("memory plan:\n{planned}")));
        let answers = self.generate_on_ranks(requests, tokens)?;
        planned.iter().for_each(|planned| note(&self.ranks[0].format_peak(planned)));
        Ok(answers)
    }

    fn room(&self, requests: &[CompletionRequest]) -> Result<Vec<usize>> {
        let loaded = &self.ranks[0];
        let positions = loaded.checkpoint.config().max_positions;
        let room = |request: &CompletionRequest| {
            let prompt = encode(loaded, request)?.len();
            Ok(positions.saturating_sub(prompt).min(request.max_tokens))
        };
        requests.iter().map(room).collect()
    }

    fn fingerprint(&self) -> Option<&str> {
        Some(self.ranks[0].fingerprint())
    }
}

impl LocalModel {
    /// Plans the memory of rank 0's share of the requests.
    fn plan_memory(&self, requests: &[CompletionRequest]) -> Result<Usage> {
        let loaded = &self.ranks[0];
        let share = requests.iter().take(self.share(requests)).map(|request| to_generation(loaded, request));
        loaded.plan_memory(&share.collect::<Result<Vec<_>>>()?, SchedulerConfig::default())
    }

    /// Returns the number of requests per rank.
    fn share(&self, requests: &[CompletionRequest]) -> usize {
        let shares = if self.is_lockstep() { 1 } else { self.ranks.len() };
        requests.len().div_ceil(shares).max(1)
    }

    /// Returns true if every request needs every rank.
    fn is_lockstep(&self) -> bool {
        self.ranks[0].model.rank_layout().is_lockstep()
    }

    fn generate_on_ranks(
        &self,
        requests: &[CompletionRequest],
        tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        if let [single] = &self.ranks[..] {
            return generate_on_rank(single, requests, tokens);
        }
        let lockstep = self.is_lockstep();
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            // A text depends only on its request, so any rank may generate it.
            let shares: Vec<&[CompletionRequest]> = if lockstep {
                vec![requests; self.ranks.len()]
            } else {
                requests.chunks(self.share(requests)).collect()
            };
            let ranks = self.ranks.iter().zip(shares).enumerate().map(|(rank, (loaded, requests))| {
                let sender = (rank == 0 || !lockstep).then(|| sender.clone());
                (loaded.model.rank_layout().comm().clone(), (loaded, requests, sender))
            });
            let ranks = ranks.collect();
            drop(sender);
            let answers = scope.spawn(move || {
                on_all_ranks(ranks, |(loaded, requests, sender)| {
                    // After another rank's failure there may be no receiver.
                    let mut send = |new| sender.iter().for_each(|sender| sender.send(new).unwrap_or(()));
                    generate_on_rank(loaded, requests, &mut send)
                })
            });
            receiver.into_iter().for_each(tokens);
            let answers = answers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(if lockstep { answers.into_iter().take(1).collect::<Vec<_>>() } else { answers }.concat())
        })
    }
}

/// Generates a rank's requests.
fn generate_on_rank(
    loaded: &InferenceModel,
    requests: &[CompletionRequest],
    tokens: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<String>>> {
    let InferenceModel { model, tokenizer, .. } = loaded;
    let generation: Vec<GenerationRequest> =
        requests.iter().map(|request| to_generation(loaded, request)).collect::<Result<_>>()?;
    let completions =
        generate(loaded.device(), model, Some(tokenizer), &generation, SchedulerConfig::default(), tokens)
            .map_err(|e| loaded.explain(e))?;
    Ok(completions.into_iter().map(|samples| samples.into_iter().map(|c| c.text).collect()).collect())
}

/// Returns the template that the model's own files hold, if the request asks for it.
fn template(request: &CompletionRequest) -> Option<PromptTemplate> {
    request.chat_template.then_some(PromptTemplate::Chat)
}

/// Tokenizes a prompt, as one to infill or under the chat template if the request asks for it.
fn encode(loaded: &InferenceModel, request: &CompletionRequest) -> Result<Vec<u32>> {
    match &request.suffix {
        Some(suffix) => loaded.tokenizer.infill(&request.prompt, suffix),
        None => loaded.encode_prompt(&request.prompt, template(request)),
    }
}

/// Tokenizes a request.
fn to_generation(loaded: &InferenceModel, request: &CompletionRequest) -> Result<GenerationRequest> {
    Ok(GenerationRequest {
        n: request.n,
        sampling: SamplingParams {
            temperature: request.temperature,
            top_p: request.top_p,
            seed: request.seed,
            ..SamplingParams::default()
        },
        stop: loaded.stop_strings(&request.stop, template(request))?,
        stop_token_ids: match request.suffix {
            Some(_) => loaded.tokenizer.require_infill_tokens()?.ends.clone(),
            None => Vec::new(),
        },
        ..GenerationRequest::greedy(encode(loaded, request)?, request.max_tokens)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::DType;
    use codelsi_launch::{DeviceChoice, RankOptions};
    use codelsi_model::checkpoint::PackWeights;
    use codelsi_model::parallel::Layout;
    use codelsi_model::synthetic;

    #[test]
    fn ranks_answer_as_one_model_does() {
        let folder = tempfile::tempdir().unwrap();
        synthetic::write_random_model(folder.path(), &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {})
            .unwrap();
        let request = |i: usize| CompletionRequest {
            prompt: format!("function f{i}"),
            suffix: None,
            chat_template: false,
            message: None,
            n: 2,
            max_tokens: 6,
            temperature: 1.0,
            top_p: 0.9,
            seed: i as u64,
            stop: Vec::new(),
        };
        let requests: Vec<CompletionRequest> = (0..5).map(request).collect();
        let answers = |ranks: u16, layout: Layout| {
            let placement = Placement {
                device: DeviceChoice::Cpu,
                compute: Some(DType::F32),
                ranks: RankOptions { count: Some(ranks), timeout: None },
                layout,
                pack_weights: PackWeights::Auto,
            };
            let mut tokens = 0;
            let answers = LocalModel::open(folder.path(), placement)
                .unwrap()
                .generate(&requests, &mut |new| tokens += new)
                .unwrap();
            (answers, tokens)
        };
        let single = answers(1, Layout::Replicate);
        assert!(single.0.len() == 5 && single.1 > 0);
        for ranks in [2, 3, 7] {
            assert_eq!(answers(ranks, Layout::Replicate), single, "{ranks} ranks");
        }
        for (ranks, layout) in [(2, Layout::Tensor), (2, Layout::Shard), (3, Layout::Shard)] {
            assert_eq!(answers(ranks, layout), single, "{ranks} ranks, {layout}");
        }
    }
}
