//! The flags that say what is trained.

use clap::Args;
use codelsi_model::adapter::Method;

/// What is trained: LoRA, unless told otherwise.
#[derive(Args, Clone, Debug)]
pub struct MethodArgs {
    /// Train every weight instead of an adapter.
    #[arg(long, conflicts_with_all = ["rslora", "dora", "experts", "bottleneck"])]
    pub full: bool,
    /// Scale the adapter by alpha / √rank instead of alpha / rank (rsLoRA).
    #[arg(long, conflicts_with_all = ["experts", "bottleneck"])]
    rslora: bool,
    /// Train the length of every output channel too, with LoRA for its direction (DoRA).
    #[arg(long, conflicts_with_all = ["experts", "bottleneck"])]
    dora: bool,
    /// A mixture of this many LoRA experts, each of --rank, weighed by a router for each token.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "bottleneck")]
    experts: Option<u16>,
    /// Bottleneck adapters of this width, after attention and after the MLP, instead of LoRA.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["rank", "alpha"])]
    bottleneck: Option<u16>,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// The adapter is scaled by alpha / rank.
    #[arg(long, default_value_t = 32.0)]
    pub alpha: f32,
}

impl MethodArgs {
    /// What the adapter is.
    pub fn method(&self) -> Method {
        match (self.experts, self.bottleneck) {
            (Some(experts), _) => Method::Mixture { experts: experts.into() },
            (_, Some(_)) => Method::Bottleneck,
            _ => Method::LowRank { rslora: self.rslora, dora: self.dora },
        }
    }

    /// R, whatever it is the width of.
    pub fn rank(&self) -> usize {
        self.bottleneck.map_or(self.rank, usize::from)
    }
}
