//! Completions of one prompt, by one model that all ranks share.

use crate::loaded::Loaded;
use crate::output::Output;
use crate::placement::Placement;
use codelsi_engine::{Error, Result};
use codelsi_model::generate::{Completion, GenerationRequest, SamplingParams, SchedulerConfig, generate};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::template::PromptTemplate;
use std::path::PathBuf;

/// A prompt.
pub enum Prompt {
    /// A text, wrapped as an instruction where there is a template.
    Text(String, Option<PromptTemplate>),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

/// One prompt, and how it is completed.
pub struct GenerationOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Adapter folder.
    pub adapter: Option<PathBuf>,
    pub prompt: Prompt,
    /// Completions.
    pub n: usize,
    /// Tokens of a completion at most.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    /// Texts at which a completion ends.
    pub stop: Vec<String>,
    /// Tokens of a KV page.
    pub page_size: usize,
}

/// Completes a prompt, with the memory plan and a progress bar on stderr; nothing in a process that is not rank 0.
///
/// # Errors
/// With several ranks that do not share the model; when the model does not load or fit.
pub fn complete(
    options: &GenerationOptions,
    placement: Placement,
    out: &Output,
) -> Result<Option<Vec<Completion>>> {
    if placement.ranks.world()? > 1 && placement.layout == Layout::Replicate {
        return Err(Error::new(
            "--layout replicate shares prompts, and there is one: use --ranks 1, or --layout tensor or shard",
        ));
    }
    placement.run(|split| on_rank(options, placement, split, out))
}

/// Completes the prompt on one rank; rank 0 alone shows its progress.
fn on_rank(
    options: &GenerationOptions,
    placement: Placement,
    split: RankLayout,
    out: &Output,
) -> Result<Vec<Completion>> {
    let tells = split.comm().rank() == 0;
    let loaded = Loaded::on(split, &options.model, placement.compute, options.adapter.as_deref())?;
    let prompt = match &options.prompt {
        Prompt::Text(text, None) => loaded.tokenizer.encode(text, true)?,
        Prompt::Text(text, Some(template)) => loaded.tokenizer.encode(&template.wrap(text), true)?,
        Prompt::Ids(ids) => ids.clone(),
    };
    let request = GenerationRequest {
        prompt,
        n: options.n,
        max_tokens: options.max_tokens,
        sampling: options.sampling.clone(),
        stop: options.stop.clone(),
        stop_at_eos: true,
    };
    let limits = SchedulerConfig { page_size: options.page_size, ..SchedulerConfig::default() };
    let requests = [request];
    let planned = if tells { Some(loaded.plan(&requests, limits)?) } else { None };
    planned.iter().for_each(|planned| eprintln!("memory plan:\n{planned}"));
    let bar = tells.then(|| out.bar("generate", options.n * options.max_tokens));
    let mut progress = |tokens| bar.iter().for_each(|bar| bar.add(tokens));
    let (model, tokenizer) = (&loaded.model, Some(&loaded.tokenizer));
    let made = generate(loaded.device(), model, tokenizer, &requests, limits, &mut progress)
        .map_err(|e| loaded.blame(e))?;
    bar.iter().for_each(|bar| bar.finish());
    planned.iter().for_each(|planned| eprintln!("{}", loaded.peak(planned)));
    Ok(made.into_iter().flatten().collect())
}
