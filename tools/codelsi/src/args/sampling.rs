//! The flags of sampling.

use crate::args::{help, number};
use clap::Args;
use codelsi_eval::protocol::PromptFormat;
use codelsi_experiment::protocol::ProtocolOptions;
use codelsi_model::generate::SamplingParams;

/// The sampler of `generate`.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    #[arg(long, help = help::TEMPERATURE, default_value_t = 0.2, value_parser = number::temperature)]
    temperature: f32,
    /// Keep the K likeliest tokens; 0 keeps all.
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = number::candidates())]
    top_k: usize,
    #[arg(long, help = help::TOP_P, value_name = "P", default_value_t = 0.95, value_parser = number::share)]
    top_p: f32,
    /// Keep tokens at least P times as probable as the likeliest; 0 keeps all.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number::share)]
    min_p: f32,
    /// Factor against tokens that are in the text already; 1 is none.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = number::factor)]
    repetition_penalty: f32,
    /// Penalty for each time that a token was generated, -2 to 2; 0 is none.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number::penalty)]
    #[arg(allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Penalty of tokens that were generated already, -2 to 2; 0 is none.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number::penalty)]
    #[arg(allow_negative_numbers = true)]
    presence_penalty: f32,
    #[arg(long, help = help::SEED, default_value_t = 42)]
    seed: u64,
}

impl From<SamplingArgs> for SamplingParams {
    fn from(args: SamplingArgs) -> Self {
        SamplingParams {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            frequency_penalty: args.frequency_penalty,
            presence_penalty: args.presence_penalty,
            seed: args.seed,
        }
    }
}

/// The protocol of a measurement: sampling and prompts.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Protocol")]
pub struct ProtocolArgs {
    #[arg(short, long = "samples", help = help::SAMPLES, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = number::samples())]
    n: usize,
    #[arg(long, help = help::TEMPERATURE, default_value_t = 0.2, value_parser = number::temperature)]
    temperature: f32,
    #[arg(long, help = help::TOP_P, value_name = "P", default_value_t = 0.95, value_parser = number::share)]
    top_p: f32,
    #[arg(long, help = help::MAX_TOKENS, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = number::tokens())]
    max_tokens: usize,
    #[arg(long, help = help::SEED, default_value_t = 42)]
    seed: u64,
    #[arg(long, help = help::PROMPT_FORMAT, value_name = "FORMAT", default_value = "completion")]
    prompt_format: PromptFormat,
    #[arg(long, help = help::LIMIT, value_name = "N", value_parser = number::rows())]
    limit: Option<usize>,
}

impl ProtocolArgs {
    /// Returns the options of these flags.
    pub fn options(&self) -> ProtocolOptions {
        ProtocolOptions {
            n: self.n,
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_tokens,
            seed: self.seed,
            prompt_format: self.prompt_format,
            limit: self.limit,
        }
    }
}
