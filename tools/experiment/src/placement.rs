//! Placement of a model: device, precision, ranks and layout.

use codelsi_engine::{DType, Result};
use codelsi_launch::{DeviceChoice, RankOptions};
use codelsi_model::checkpoint::{Checkpoint, PackWeights};
use codelsi_model::parallel::{Layout, RankLayout};

/// Device, precision, ranks and parallel layout of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement {
    pub device: DeviceChoice,
    /// Storage type of activations; by default the checkpoint's.
    pub compute: Option<DType>,
    pub ranks: RankOptions,
    /// Parallel layout of the model over the ranks.
    pub layout: Layout,
    /// Packed copies of the weights on the CPU.
    pub pack_weights: PackWeights,
}

impl Placement {
    /// Returns the storage type of activations for a checkpoint.
    pub fn compute(&self, checkpoint: &Checkpoint) -> DType {
        self.compute.unwrap_or(checkpoint.dtype())
    }

    /// Runs `f` on every rank and returns rank 0's result, or `None` in the process of another rank.
    ///
    /// # Errors
    /// As [`RankOptions::run`].
    pub fn run<T: Send>(&self, f: impl Fn(RankLayout) -> Result<T> + Sync) -> Result<Option<T>> {
        self.ranks.run(self.device, |rank| f(RankLayout::new(rank, self.layout)))
    }

    /// Opens the layouts of all ranks, in a process that holds them all.
    ///
    /// # Errors
    /// As [`RankOptions::open`].
    pub fn open(&self) -> Result<Vec<RankLayout>> {
        let ranks = self.ranks.open(self.device)?;
        Ok(ranks.into_iter().map(|rank| RankLayout::new(rank, self.layout)).collect())
    }
}
