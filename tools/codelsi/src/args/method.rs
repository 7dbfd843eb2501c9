//! The flags that choose the trained weights.

use crate::args::number;
use clap::{Args, ValueEnum};
use codelsi_model::adapter::{AdapterConfig, Method};

/// The method of fine-tuning: LoRA by default.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Method (LoRA by default)")]
pub struct MethodArgs {
    /// Train every weight instead of an adapter.
    #[arg(long, conflicts_with_all = ["rslora", "dora", "experts", "bottleneck"])]
    pub full: bool,
    /// Scale the adapter by alpha / √rank instead of alpha / rank (rsLoRA).
    #[arg(long, conflicts_with_all = ["experts", "bottleneck"])]
    rslora: bool,
    /// Train the magnitude of every output channel too, and its direction by LoRA (DoRA).
    #[arg(long, conflicts_with_all = ["experts", "bottleneck"])]
    dora: bool,
    /// Train a mixture of E LoRA experts, each of --rank, weighted by a router for each token; 1 to 1024.
    #[arg(long, value_name = "E", value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "bottleneck")]
    experts: Option<u16>,
    /// Train bottleneck adapters of width R, after attention and after the MLP, instead of LoRA.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u16).range(1..=1 << 14), conflicts_with_all = ["rank", "alpha"])]
    bottleneck: Option<u16>,
    /// Rank of the adapter [default: 16]
    #[arg(long, value_name = "R", conflicts_with = "full", value_parser = number::rank())]
    rank: Option<usize>,
    /// Numerator of the adapter's scale, alpha / rank; above 0 [default: 32]
    #[arg(long, conflicts_with = "full")]
    alpha: Option<f32>,
    /// Train the embedding, the head or both (embed,head) in full beside the adapter, which then holds them: PEFT's
    /// modules_to_save.
    #[arg(long, value_name = "MODULES", value_delimiter = ',', conflicts_with = "full")]
    also: Vec<AlsoArg>,
}

/// The values of `--also`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum AlsoArg {
    Embed,
    Head,
}

impl AlsoArg {
    /// Name of the module in a checkpoint.
    fn module(self) -> String {
        match self {
            AlsoArg::Embed => "embed_tokens".into(),
            AlsoArg::Head => "lm_head".into(),
        }
    }
}

impl MethodArgs {
    /// Returns `settings` with what the flags ask for instead.
    pub fn settings(&self, settings: AdapterConfig) -> AdapterConfig {
        let method = match (self.experts, self.bottleneck) {
            (Some(experts), _) => Method::Mixture { experts: experts.into() },
            (_, Some(_)) => Method::Bottleneck,
            _ if self.rslora || self.dora => Method::LowRank { rslora: self.rslora, dora: self.dora },
            _ => settings.method,
        };
        // The rank of a bottleneck is its width.
        let rank = self.bottleneck.map(usize::from).or(self.rank).unwrap_or(settings.rank);
        let mut also = self.also.clone();
        also.sort();
        also.dedup();
        let modules_to_save = match also.is_empty() {
            true => settings.modules_to_save,
            false => also.into_iter().map(AlsoArg::module).collect(),
        };
        let alpha = self.alpha.unwrap_or(settings.alpha);
        AdapterConfig { method, rank, alpha, modules_to_save, ..settings }
    }
}
