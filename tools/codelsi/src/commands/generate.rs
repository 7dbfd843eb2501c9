//! `codelsi generate`: completes a prompt.

use crate::args::{ModelArgs, RankArgs, SamplingArgs, folder, help, number};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::printable::for_terminal;
use codelsi_engine::{Error, Result};
use codelsi_experiment::generation::{GenerationOptions, Prompt, ShowText, complete};
use codelsi_experiment::output::Output;
use codelsi_model::generate::Completion;
use codelsi_model::template::PromptTemplate;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// Complete a prompt.
#[derive(Args)]
pub struct GenerateArgs {
    #[arg(long, help = help::ADAPTER, value_name = "DIR", value_parser = folder())]
    adapter: Option<PathBuf>,
    /// Text to complete; - reads it from stdin.
    #[arg(long, value_name = "TEXT", required_unless_present = "prompt_ids", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Prompt as token ids, separated by commas; nothing is added to them.
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "prompt")]
    prompt_ids: Vec<u32>,
    /// Text after the one to generate, where --prompt is the text before it: the model fills the hole between them.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["prompt_ids", "template"])]
    suffix: Option<String>,
    #[arg(long, help = format!("{} [default: the text as it is]", help::TEMPLATE))]
    template: Option<PromptTemplate>,
    #[arg(short, long = "samples", help = help::SAMPLES, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = number::samples())]
    n: usize,
    #[arg(long, help = help::MAX_TOKENS, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = number::tokens())]
    max_tokens: usize,
    /// Text before which a sample ends, or a control token; repeat the flag for more.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Continue past the tokens that end a text, and with --suffix the infilled one.
    #[arg(long)]
    ignore_eos: bool,
    #[arg(long, help = help::PAGE_SIZE, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    page_size: u16,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub fn run(args: &GenerateArgs, out: &Output) -> Result<()> {
    let text = match args.prompt.as_deref() {
        Some("-") => Some(read_stdin()?),
        text => text.map(str::to_owned),
    };
    let prompt = match (text, &args.suffix) {
        (Some(prefix), Some(suffix)) => Prompt::Infill { prefix, suffix: suffix.clone() },
        (Some(text), None) => Prompt::Text(text, args.template),
        (None, _) => Prompt::Ids(args.prompt_ids.clone()),
    };
    let options = GenerationOptions {
        model: args.model.model.clone(),
        adapter: args.adapter.clone(),
        prompt,
        n: args.n,
        max_tokens: args.max_tokens,
        sampling: args.sampling.into(),
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        page_size: args.page_size.into(),
    };
    let streams = io::stdout().is_terminal() && args.n == 1 && !args.json;
    let show_text: ShowText = &|text| {
        let mut stdout = io::stdout().lock();
        // A terminal that is gone is no reason to panic.
        let _ = stdout.write_all(for_terminal(text).as_bytes()).and_then(|()| stdout.flush());
    };
    let placement = args.ranks.placement(args.model.device);
    let completions = complete(&options, placement, out, streams.then_some(show_text))?;
    completions.iter().filter(|_| !streams).for_each(|completions| show(args, completions));
    Ok(())
}

fn read_stdin() -> Result<String> {
    io::read_to_string(io::stdin()).map_err(|e| Error::io("stdin", e))
}

fn show(args: &GenerateArgs, completions: &[Completion]) {
    if !args.json {
        for (i, c) in completions.iter().enumerate() {
            if completions.len() > 1 {
                println!("--- {} ({})", i + 1, c.finish_reason.name());
            }
            let to_terminal = io::stdout().is_terminal();
            println!("{}", if to_terminal { for_terminal(&c.text) } else { c.text.clone() });
        }
    }
    let row = |c: &Completion| {
        json!({
            "text": c.text, "token_ids": c.token_ids, "logprobs": c.logprobs,
            "finish_reason": c.finish_reason.name(),
        })
    };
    print_json(args.json, &json!({ "completions": completions.iter().map(row).collect::<Vec<_>>() }));
}
