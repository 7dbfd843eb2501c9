//! Ranks: sums and gathers between the workers of one run, in a fixed order.
//!
//! A rank that dies, fails or hangs ends the run: every collective has a time limit, its error names the rank that is
//! missing, and a rank that fails tells the others why.

mod coming;
mod communicator;
mod host;
mod nccl;
mod socket;
mod threads;
mod watch;

pub use coming::Coming;
pub use communicator::UniqueId;
pub use host::Host;
pub use nccl::Nccl;
pub use socket::{Rendezvous, Sockets};
pub use threads::Threads;

use crate::{Device, Result, Tensor};
use std::sync::Arc;
use std::time::Duration;

/// How long a rank waits for the others unless it is told.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// How values of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Added in f32, in rank order.
    Sum,
    Max,
}

/// Collective operations of one rank, on tensors of its device. Every rank calls the same ones in the same order.
///
/// Their errors: a rank is gone, has failed (with its reason) or did not come in time; or ranks differ in what they call.
pub trait Comm: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world(&self) -> usize;
    /// `x` becomes what all ranks' `x` (f32 or bf16) reduce to: the same bits on every rank and in every run.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()>;
    /// Fills `out` with every rank's `x`, in rank order; `out` is `world` times as long as `x`.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// [`Comm::all_gather`] of several tensors, each with the one that it fills. Cards of their own do it beside the ops that
    /// follow; other links are done when it returns.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn gather_ahead(&self, mut gathers: Vec<(Tensor, Tensor)>) -> Result<Coming> {
        gathers.iter_mut().try_for_each(|(part, whole)| self.all_gather(part, whole))?;
        Ok(Coming::here(gathers))
    }
    /// `out` becomes this rank's part of the sum of `x` over ranks; `x` is `world` times as long as `out`.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// Each tensor gets the content that it has on the rank beside it. Returns when the content is there.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()>;
    /// Returns when every rank has arrived.
    ///
    /// # Errors
    /// As [`Comm`] says.
    fn barrier(&self) -> Result<()>;
    /// A second link between the same ranks, for another thread to use at the same time as this one.
    fn beside(&self) -> &dyn Comm;
    /// Tells the other ranks that this one ends, and `why`: whatever they call next, or wait in, is that error.
    fn abort(&self, why: &str);
    /// Seconds that this rank has spent in collectives, of all links.
    fn seconds(&self) -> f64;
}

/// One worker of a run: where it computes, and its link to the others.
#[derive(Clone)]
pub struct Rank {
    pub device: Device,
    pub comm: Arc<dyn Comm>,
}

/// A device makes the only rank.
impl From<&Device> for Rank {
    fn from(device: &Device) -> Self {
        Rank { device: device.clone(), comm: Arc::new(Solo) }
    }
}

/// The only rank.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn world(&self) -> usize {
        1
    }
    fn all_reduce(&self, _: &mut Tensor, _: Reduce) -> Result<()> {
        Ok(())
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.copy_from(x)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.copy_from(x)
    }
    fn broadcast(&self, _: &mut [(usize, Tensor)]) -> Result<()> {
        Ok(())
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn beside(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, _: &str) {}
    fn seconds(&self) -> f64 {
        0.0
    }
}

/// One rank of several on the planning device, where nothing has content to exchange.
pub struct Planned {
    pub rank: usize,
    pub world: usize,
}

impl Comm for Planned {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world(&self) -> usize {
        self.world
    }
    fn all_reduce(&self, _: &mut Tensor, _: Reduce) -> Result<()> {
        Ok(())
    }
    fn all_gather(&self, _: &Tensor, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
    fn reduce_scatter(&self, _: &Tensor, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _: &mut [(usize, Tensor)]) -> Result<()> {
        Ok(())
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn beside(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, _: &str) {}
    fn seconds(&self) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests;
