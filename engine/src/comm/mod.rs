//! Collective operations between the ranks of one run.
//!
//! A rank that dies, fails or hangs ends the run: every collective has a time limit, its error names the rank that is
//! missing, and a rank that fails sends the others the reason.

mod communicator;
mod heartbeat;
mod host;
mod nccl;
mod pending_gather;
mod socket;
mod threads;

pub use communicator::UniqueId;
pub use host::HostComm;
pub use nccl::NcclComm;
pub use pending_gather::PendingGather;
pub use socket::{Rendezvous, Sockets};
pub use threads::Threads;

use crate::{Device, Result, Tensor};
use std::sync::Arc;
use std::time::Duration;

/// Default time that a rank waits for the others.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// The operation that reduces the values of several ranks to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Addition in f32, in rank order.
    Sum,
    Max,
}

/// The communicator of one rank, for tensors of its device. All ranks call the same collectives in the same order.
///
/// # Errors
/// A collective fails when a rank is gone, has failed (the error is its reason) or does not arrive in time, or when
/// ranks call different collectives.
pub trait Comm: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// The number of ranks.
    fn world(&self) -> usize;
    /// Replaces `x` (f32 or bf16) by the reduction of all ranks' `x`: the same bits on every rank and in every run.
    ///
    /// # Errors
    /// See [`Comm`].
    fn all_reduce(&self, x: &mut Tensor, op: ReduceOp) -> Result<()>;
    /// Fills `out` with every rank's `x`, in rank order; `out` is `world` times as long as `x`.
    ///
    /// # Errors
    /// See [`Comm`].
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// Starts a [`Comm::all_gather`] for each pair of a tensor and the one to fill. With one card per rank the gathers
    /// overlap with the ops that follow; otherwise they are done when this returns.
    ///
    /// # Errors
    /// See [`Comm`].
    fn all_gather_async(&self, mut gathers: Vec<(Tensor, Tensor)>) -> Result<PendingGather> {
        gathers.iter_mut().try_for_each(|(part, full)| self.all_gather(part, full))?;
        Ok(PendingGather::complete(gathers))
    }
    /// Sums `x` over all ranks and writes this rank's part to `out`; `x` is `world` times as long as `out`.
    ///
    /// # Errors
    /// See [`Comm`].
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// Broadcasts each tensor from the rank given with it, and returns when the content has arrived.
    ///
    /// # Errors
    /// See [`Comm`].
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()>;
    /// Blocks until every rank has arrived.
    ///
    /// # Errors
    /// See [`Comm`].
    fn barrier(&self) -> Result<()>;
    /// A second communicator of the same ranks, which another thread may use at the same time.
    fn secondary(&self) -> &dyn Comm;
    /// Ends the run for all ranks: the collective that they wait in or call next fails with the reason `why`.
    fn abort(&self, why: &str);
    /// Seconds that this rank has spent in collectives, over all its communicators.
    fn seconds(&self) -> f64;
}

/// One rank of a run: its device and its communicator.
#[derive(Clone)]
pub struct Rank {
    pub device: Device,
    pub comm: Arc<dyn Comm>,
}

/// A device alone is the only rank.
impl From<&Device> for Rank {
    fn from(device: &Device) -> Self {
        Rank { device: device.clone(), comm: Arc::new(Solo) }
    }
}

/// The communicator of a run with one rank.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn world(&self) -> usize {
        1
    }
    fn all_reduce(&self, _: &mut Tensor, _: ReduceOp) -> Result<()> {
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
    fn secondary(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, _: &str) {}
    fn seconds(&self) -> f64 {
        0.0
    }
}

/// The communicator of one of several ranks on a planning device; it exchanges nothing.
pub struct PlannedComm {
    pub rank: usize,
    pub world: usize,
}

impl Comm for PlannedComm {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world(&self) -> usize {
        self.world
    }
    fn all_reduce(&self, _: &mut Tensor, _: ReduceOp) -> Result<()> {
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
    fn secondary(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, _: &str) {}
    fn seconds(&self) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests;
