//! The flags of commands that run on several ranks.

use crate::args::{DeviceArgs, help};
use clap::Args;
use codelsi_experiment::placement::Placement;
use codelsi_launch::RankOptions;
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::parallel::Layout;

/// The ranks of a run and the layout of the model across them.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Device and ranks")]
pub struct RankArgs {
    #[arg(long, help = format!("{} {}", help::RANKS, help::RANKS_DEFAULT), value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    #[arg(long, help = help::LAYOUT, default_value_t)]
    layout: Layout,
    #[arg(long, help = help::PACK_WEIGHTS, value_name = "WHEN", default_value_t)]
    pack_weights: PackWeights,
    #[arg(long, help = help::TIMEOUT, value_name = "SECONDS")]
    timeout: Option<f64>,
}

impl RankArgs {
    /// Returns the placement of these ranks on `device`.
    pub fn placement(self, device: DeviceArgs) -> Placement {
        Placement {
            device: device.device,
            compute: device.compute.map(Into::into),
            ranks: RankOptions { count: self.ranks, timeout: self.timeout },
            layout: self.layout,
            pack_weights: self.pack_weights,
        }
    }
}
