//! `codelsi generate`: completes a prompt.

use crate::args::{ModelArgs, RankArgs};
use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::generation::{GenerationOptions, Prompt, complete};
use codelsi_experiment::output::Output;
use codelsi_model::generate::{Completion, SamplingParams};
use codelsi_model::template::PromptTemplate;
use serde_json::json;
use std::path::PathBuf;

/// Complete a prompt.
#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// Adapter folder in PEFT's layout.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// The text to complete.
    #[arg(long, required_unless_present = "prompt_ids")]
    prompt: Option<String>,
    /// The prompt as token ids, taken as they are.
    #[arg(long, value_delimiter = ',', conflicts_with = "prompt")]
    prompt_ids: Vec<u32>,
    /// Wrap the prompt as an instruction: paper, inst or plain.
    #[arg(long)]
    template: Option<PromptTemplate>,
    /// Completions.
    #[arg(short, default_value_t = 1)]
    n: usize,
    /// Tokens of a completion at most.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End before this text; may be given again.
    #[arg(long)]
    stop: Vec<String>,
    /// Tokens of a KV page. Changes no text.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    page_size: u16,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// How tokens are chosen.
#[derive(Args, Clone, Copy, Debug)]
pub struct SamplingArgs {
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.2)]
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Keep the likeliest tokens that reach this probability together.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Keep tokens at least this share as probable as the likeliest.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// 1 is none.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Of the sampling; the same seed gives the same text.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

impl From<SamplingArgs> for SamplingParams {
    fn from(a: SamplingArgs) -> Self {
        SamplingParams {
            temperature: a.temperature,
            top_k: a.top_k,
            top_p: a.top_p,
            min_p: a.min_p,
            repetition_penalty: a.repetition_penalty,
            seed: a.seed,
        }
    }
}

/// Runs the command.
pub fn run(args: &Generate, out: &Output) -> Result<()> {
    let prompt = match &args.prompt {
        Some(text) => Prompt::Text(text.clone(), args.template),
        None => Prompt::Ids(args.prompt_ids.clone()),
    };
    let options = GenerationOptions {
        model: args.model.model.clone(),
        adapter: args.adapter.clone(),
        prompt,
        n: args.n,
        max_tokens: args.max_tokens,
        sampling: args.sampling.into(),
        stop: args.stop.clone(),
        page_size: args.page_size.into(),
    };
    let completions = complete(&options, args.ranks.placement(args.model.place), out)?;
    completions.iter().for_each(|completions| show(args, completions, out));
    Ok(())
}

fn show(args: &Generate, completions: &[Completion], out: &Output) {
    if !args.json {
        for (i, c) in completions.iter().enumerate() {
            if completions.len() > 1 {
                println!("--- {} ({})", i + 1, c.finish_reason.name());
            }
            println!("{}", c.text);
        }
    }
    let rows: Vec<_> = completions
        .iter()
        .map(|c| json!({ "text": c.text, "token_ids": c.token_ids, "finish_reason": c.finish_reason.name() }))
        .collect();
    out.json(args.json, &json!({ "completions": rows }));
}
