//! A parallel layout, and one rank of it.

use codelsi_engine::{Comm, Device, PlannedComm, Rank, Solo};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The way in which the ranks of a run share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Data parallel (DDP): every rank holds the full model and runs its own micro-batches.
    #[default]
    Replicate,
    /// ZeRO-3 / FSDP of the frozen weights: data parallel, but each rank stores 1/N of every frozen matrix, and
    /// matrices are gathered when they are used (Rajbhandari et al., arXiv 1910.02054).
    Shard,
    /// Megatron tensor parallel: every rank computes its slice of each layer, of the same batch (Shoeybi et al., arXiv
    /// 1909.08053).
    Tensor,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "replicate" => Ok(Layout::Replicate),
            "shard" => Ok(Layout::Shard),
            "tensor" => Ok(Layout::Tensor),
            _ => Err(format!("`{name}` is no layout: replicate, shard or tensor")),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Replicate => "replicate",
            Layout::Shard => "shard",
            Layout::Tensor => "tensor",
        })
    }
}

/// A rank (its device and its link to the others), and the layout in which it holds the model.
#[derive(Clone)]
pub struct RankLayout {
    rank: Rank,
    layout: Layout,
}

impl RankLayout {
    /// Places `rank` in `layout`. A single rank holds the full model in any layout.
    pub fn new(rank: Rank, layout: Layout) -> Self {
        let layout = if rank.comm.world() == 1 { Layout::Replicate } else { layout };
        RankLayout { rank, layout }
    }

    /// Returns this rank and layout on the planning device.
    pub fn planning(&self) -> Self {
        let (rank, world) = (self.rank.comm.rank(), self.rank.comm.world());
        let rank = Rank { device: self.device().planning(), comm: Arc::new(PlannedComm { rank, world }) };
        RankLayout { rank, layout: self.layout }
    }

    /// True if all ranks must run each batch in lockstep, because a single rank cannot run the model.
    pub fn is_lockstep(&self) -> bool {
        self.layout != Layout::Replicate
    }

    /// The device on which this rank computes.
    pub fn device(&self) -> &Device {
        &self.rank.device
    }

    /// The layout; [`Layout::Replicate`] for a single rank.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The link between all ranks.
    pub fn comm(&self) -> &Arc<dyn Comm> {
        &self.rank.comm
    }

    /// The tensor-parallel group: the link between ranks that share one batch, with which a model's ops run.
    pub fn tensor_parallel_comm(&self) -> Arc<dyn Comm> {
        match self.layout {
            Layout::Replicate | Layout::Shard => Arc::new(Solo),
            Layout::Tensor => self.rank.comm.clone(),
        }
    }

    /// The data-parallel group: the link between ranks with different batches, whose gradients are summed.
    pub fn data_parallel_comm(&self) -> Arc<dyn Comm> {
        match self.layout {
            Layout::Replicate | Layout::Shard => self.rank.comm.clone(),
            Layout::Tensor => Arc::new(Solo),
        }
    }
}

/// One replica of a data-parallel run.
impl From<Rank> for RankLayout {
    fn from(rank: Rank) -> Self {
        RankLayout::new(rank, Layout::Replicate)
    }
}

/// The full model on one device.
impl From<&Device> for RankLayout {
    fn from(device: &Device) -> Self {
        Rank::from(device).into()
    }
}
