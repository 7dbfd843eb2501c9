//! Completions of one prompt, by a model that all ranks share.

use crate::inference_model::InferenceModel;
use crate::output::{Output, note};
use crate::placement::Placement;
use codelsi_engine::{Error, Result};
use codelsi_eval::protocol::check_sampling;
use codelsi_model::generate::{
    Completion, Event, GenerationRequest, SamplingParams, SchedulerConfig, generate_with_events,
};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::template::PromptTemplate;
use std::path::PathBuf;

/// A prompt.
pub enum Prompt {
    /// Text, wrapped as an instruction if there is a template.
    Text(String, Option<PromptTemplate>),
    /// Token ids.
    Ids(Vec<u32>),
    /// Text before and after the one to generate.
    Infill { prefix: String, suffix: String },
}

/// A prompt, a model and sampling options.
pub struct GenerationOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Adapter folder.
    pub adapter: Option<PathBuf>,
    pub prompt: Prompt,
    /// Number of completions.
    pub n: usize,
    /// Maximum tokens per completion.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    /// Strings at which a completion ends.
    pub stop: Vec<String>,
    /// Continues past the tokens that end a text or an infilled one.
    pub ignore_eos: bool,
    /// Tokens per KV page.
    pub page_size: usize,
}

/// Shows the text of a completion as it comes.
pub type ShowText<'a> = &'a (dyn Fn(&str) + Sync);

/// Completes a prompt, with the memory plan and a progress bar on stderr, or with `show` for the text of the only
/// completion in place of the bar; returns `None` in a process that is not rank 0.
///
/// # Errors
/// When several ranks do not share the model, or the model does not load or fit.
pub fn complete(
    options: &GenerationOptions,
    placement: Placement,
    out: &Output,
    show: Option<ShowText>,
) -> Result<Option<Vec<Completion>>> {
    let SamplingParams { temperature, top_p, .. } = options.sampling;
    check_sampling(options.n, options.max_tokens, temperature, top_p)?;
    if placement.ranks.world()? > 1 && placement.layout == Layout::Replicate {
        return Err(Error::new(
            "--layout replicate distributes prompts over ranks, and there is only one: use --ranks 1, or --layout tensor or shard",
        ));
    }
    placement.run(|rank_layout| complete_on_rank(options, placement, rank_layout, out, show))
}

/// Completes the prompt on one rank; only rank 0 shows progress.
fn complete_on_rank(
    options: &GenerationOptions,
    Placement { compute, pack_weights, .. }: Placement,
    rank_layout: RankLayout,
    out: &Output,
    show: Option<ShowText>,
) -> Result<Vec<Completion>> {
    let is_rank_0 = rank_layout.comm().rank() == 0;
    let (model, adapter) = (&options.model, options.adapter.as_deref());
    let loaded = InferenceModel::open_on_rank(rank_layout, model, compute, pack_weights, adapter)?;
    let (prompt, template) = match &options.prompt {
        Prompt::Text(text, template) => (loaded.encode_prompt(text, *template)?, *template),
        Prompt::Ids(ids) => (ids.clone(), None),
        Prompt::Infill { prefix, suffix } => (loaded.tokenizer.infill(prefix, suffix)?, None),
    };
    let infill_ends = match (&options.prompt, loaded.tokenizer.infill_tokens()) {
        (Prompt::Infill { .. }, Some(tokens)) if !options.ignore_eos => tokens.ends.clone(),
        _ => Vec::new(),
    };
    let request = GenerationRequest {
        n: options.n,
        sampling: options.sampling.clone(),
        stop: match options.ignore_eos {
            true => options.stop.clone(),
            false => loaded.stop_strings(&options.stop, template)?,
        },
        stop_token_ids: infill_ends,
        stop_at_eos: !options.ignore_eos,
        ..GenerationRequest::greedy(prompt, options.max_tokens)
    };
    let scheduler = SchedulerConfig { page_size: options.page_size, ..SchedulerConfig::default() };
    let requests = [request];
    let planned = if is_rank_0 { Some(loaded.plan_memory(&requests, scheduler)?) } else { None };
    planned.iter().for_each(|planned| note(&format!("memory plan:\n{planned}")));
    let show = show.filter(|_| is_rank_0);
    let has_bar = is_rank_0 && show.is_none();
    let bar = has_bar.then(|| out.bar("generate", options.n.saturating_mul(options.max_tokens)));
    let mut on_step = |events: &[Event]| {
        for event in events {
            if let (Event::Token { text, .. } | Event::Finished { text, .. }, Some(show)) = (event, show) {
                show(text);
            }
            if let (Event::Token { .. }, Some(bar)) = (event, &bar) {
                bar.add(1);
            }
        }
    };
    let (model, tokenizer) = (&loaded.model, Some(&loaded.tokenizer));
    let completions =
        generate_with_events(loaded.device(), model, tokenizer, &requests, scheduler, &mut on_step)
            .map_err(|e| loaded.explain(e))?;
    bar.iter().for_each(|bar| bar.finish());
    show.iter().for_each(|show| show("\n"));
    planned.iter().for_each(|planned| note(&loaded.format_peak(planned)));
    Ok(completions.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_launch::DeviceChoice;
    use codelsi_model::synthetic::{config, write_random_model};
    use std::sync::Mutex;

    fn write_model(folder: &tempfile::TempDir) -> PathBuf {
        let model = folder.path().join("m");
        write_random_model(&model, &config("tiny").unwrap(), 7, &mut |_, _| ()).unwrap();
        model
    }

    fn options(model: PathBuf, stop: &[&str]) -> GenerationOptions {
        GenerationOptions {
            model,
            adapter: None,
            prompt: Prompt::Text("bana".into(), None),
            n: 1,
            max_tokens: 24,
            sampling: SamplingParams { temperature: 1.0, seed: 5, ..SamplingParams::default() },
            stop: stop.iter().map(ToString::to_string).collect(),
            ignore_eos: false,
            page_size: 16,
        }
    }

    #[test]
    fn the_damaged_weight_behind_a_failed_request_is_named() {
        const BF16_NAN: u16 = 0x7fc0;
        let folder = tempfile::tempdir().unwrap();
        let options = options(write_model(&folder), &[]);
        let weights = options.model.join("model.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&BF16_NAN.to_le_bytes());
        std::fs::write(&weights, bytes).unwrap();
        let placement = Placement { device: DeviceChoice::Cpu, ..Placement::default() };
        let message = complete(&options, placement, &Output::detect(), None).unwrap_err().to_string();
        assert!(message.contains("is NaN; the checkpoint is damaged (request 0: the logit"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn the_text_is_shown_as_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let model = write_model(&folder);
        let options = |stop: &[&str]| options(model.clone(), stop);
        let placement = Placement { device: DeviceChoice::Cpu, ..Placement::default() };
        let shown = |options: &GenerationOptions| {
            let pieces = Mutex::new(Vec::new());
            let show = |text: &str| pieces.lock().unwrap().push(text.to_owned());
            let completions = complete(options, placement, &Output::detect(), Some(&show)).unwrap().unwrap();
            (completions[0].text.clone(), pieces.into_inner().unwrap())
        };
        let (text, pieces) = shown(&options(&[]));
        assert_eq!(pieces.concat(), text.clone() + "\n");
        assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 5, "{pieces:?}");
        // No beginning of a stop string is shown.
        let stop: String = text.chars().skip(4).take(6).collect();
        let (cut, pieces) = shown(&options(&[&stop]));
        assert!(cut.len() < text.len() && text.starts_with(&cut), "{cut:?} of {text:?}");
        assert_eq!(pieces.concat(), cut + "\n");
    }
}
