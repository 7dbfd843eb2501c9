//! Where a model runs: device, precision, ranks and layout.

use codelsi_engine::{DType, Result};
use codelsi_launch::{DeviceChoice, RankOptions};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Layout, RankLayout};

/// Where a model runs, in what precision, and on how many ranks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement {
    pub device: DeviceChoice,
    /// Storage type of activations; by default the checkpoint's.
    pub compute: Option<DType>,
    pub ranks: RankOptions,
    /// How ranks share a model.
    pub layout: Layout,
}

impl Placement {
    /// Returns the storage type of activations over a checkpoint.
    pub fn compute(&self, checkpoint: &Checkpoint) -> DType {
        self.compute.unwrap_or(checkpoint.dtype())
    }

    /// Runs `f` once a rank and returns what rank 0's returns; nothing in a process that is another rank.
    ///
    /// # Errors
    /// As [`RankOptions::run`].
    pub fn run<T: Send>(&self, f: impl Fn(RankLayout) -> Result<T> + Sync) -> Result<Option<T>> {
        self.ranks.run(self.device, |rank| f(RankLayout::new(rank, self.layout)))
    }

    /// Opens the places of all ranks, in a process that holds them all.
    ///
    /// # Errors
    /// As [`RankOptions::open`].
    pub fn open(&self) -> Result<Vec<RankLayout>> {
        let ranks = self.ranks.open(self.device)?;
        Ok(ranks.into_iter().map(|rank| RankLayout::new(rank, self.layout)).collect())
    }
}
