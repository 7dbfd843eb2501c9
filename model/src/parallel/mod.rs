//! How the ranks of a run share a model.
//!
//! | layout | a rank holds | ranks exchange |
//! |---|---|---|
//! | replicate | everything | gradients of what is trained |
//! | shard | 1/N of every frozen matrix; adapters and norms whole | matrices, one layer ahead of use; gradients |
//! | tensor | its heads, its MLP columns, its rows of the vocabulary | activations, twice a layer each way |

mod cut;
mod ops;

pub use cut::Cut;
pub(crate) use ops::{enter, leave};

use codelsi_engine::{Comm, Device, Planned, Rank, Solo};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How the ranks of a run share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Every rank holds it all and runs other micro-batches.
    #[default]
    Replicate,
    /// As replicate, but the frozen matrices lie in parts on all ranks and are gathered when they are used.
    Shard,
    /// Every rank computes its part of each layer of the same batch.
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

/// One rank's place in a layout.
#[derive(Clone)]
pub struct Split {
    rank: Rank,
    layout: Layout,
}

impl Split {
    /// The place of `rank`. Alone it has the whole, in any layout.
    pub fn new(rank: Rank, layout: Layout) -> Self {
        let layout = if rank.comm.world() == 1 { Layout::Replicate } else { layout };
        Split { rank, layout }
    }

    /// The same place on the device that plans for this one.
    pub fn planning(&self) -> Self {
        let (rank, world) = (self.rank.comm.rank(), self.rank.comm.world());
        let rank = Rank { device: self.device().planning(), comm: Arc::new(Planned { rank, world }) };
        Split { rank, layout: self.layout }
    }

    /// Whether all ranks run each batch together, in step: a rank alone cannot run the model then.
    pub fn in_step(&self) -> bool {
        self.layout != Layout::Replicate
    }

    /// Where this rank computes.
    pub fn device(&self) -> &Device {
        &self.rank.device
    }

    /// The layout; of one rank alone it is [`Layout::Replicate`].
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The link between all ranks.
    pub fn comm(&self) -> &Arc<dyn Comm> {
        &self.rank.comm
    }

    /// The link between the ranks that compute one batch together: what a model's ops run with.
    pub fn within_batch(&self) -> Arc<dyn Comm> {
        match self.layout {
            Layout::Replicate | Layout::Shard => Arc::new(Solo),
            Layout::Tensor => self.rank.comm.clone(),
        }
    }

    /// The link between the ranks that have batches of their own, whose gradients are summed.
    pub fn across_batches(&self) -> Arc<dyn Comm> {
        match self.layout {
            Layout::Replicate | Layout::Shard => self.rank.comm.clone(),
            Layout::Tensor => Arc::new(Solo),
        }
    }
}

/// A replica.
impl From<Rank> for Split {
    fn from(rank: Rank) -> Self {
        Split::new(rank, Layout::Replicate)
    }
}

/// All of it on one device.
impl From<&Device> for Split {
    fn from(device: &Device) -> Self {
        Rank::from(device).into()
    }
}
