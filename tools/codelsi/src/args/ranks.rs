//! The flags of commands that run on several ranks.

use crate::args::model::PlaceArgs;
use clap::Args;
use codelsi_experiment::placement::Placement;
use codelsi_launch::RankOptions;
use codelsi_model::parallel::Layout;

/// Who shares the work, and how.
#[derive(Args, Clone, Copy, Debug)]
pub struct RankArgs {
    /// Workers, each with a device of its own: on cards, those from --device on [default: 1, or a launcher's processes]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How they share a model: replicate, shard or tensor.
    #[arg(long, default_value_t)]
    pub layout: Layout,
    /// Seconds that a rank waits for the others before the run ends [default: CODELSI_TIMEOUT, or 600]
    #[arg(long)]
    timeout: Option<f64>,
}

impl RankArgs {
    /// Returns where these ranks run.
    pub fn placement(self, place: PlaceArgs) -> Placement {
        Placement {
            device: place.device,
            compute: place.compute.map(Into::into),
            ranks: RankOptions { count: self.ranks, timeout: self.timeout },
            layout: self.layout,
        }
    }
}
