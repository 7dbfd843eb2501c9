//! Ranks on cards of their own: NCCL carries the tensors, a link through the host keeps the ranks together.

use super::{Comm, Host, Reduce};
use crate::cuda::{Collective, Communicator, Stream, UniqueId};
use crate::{DType, Device, Error, Label, Result, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

impl UniqueId {
    /// Those of both links of a run.
    ///
    /// # Errors
    /// As [`UniqueId::new`].
    pub fn pair() -> Result<[UniqueId; 2]> {
        Ok([UniqueId::new()?, UniqueId::new()?])
    }

    /// [`UniqueId::pair`] of rank 0, told to every rank over `host`.
    ///
    /// # Errors
    /// When rank 0 has no NCCL, or ranks are gone.
    pub fn pair_of(host: &Host) -> Result<[UniqueId; 2]> {
        let mut ids = Device::cpu().zeros(Label::Scratch, [64], DType::I32);
        if host.rank() == 0 {
            let [main, beside] = UniqueId::pair()?;
            ids.write_bytes(&[main.bytes().as_slice(), beside.bytes()].concat())?;
        }
        let mut told = [(0, ids)];
        host.broadcast(&mut told)?;
        let bytes = told[0].1.to_bytes()?;
        let id = |i: usize| UniqueId::from(std::array::from_fn(|j| bytes[128 * i + j]));
        Ok([id(0), id(1)])
    }
}

/// One rank with a card.
///
/// Sums and gathers of the main link are put into the stream of ops and return at once; their order of addition is
/// NCCL's. The link beside has a stream of its own: it waits for the ops before it, and returns when it is done.
pub struct Nccl {
    host: Arc<Host>,
    communicator: Communicator,
    beside: Option<Box<Nccl>>,
    nanoseconds: AtomicU64,
}

impl Nccl {
    /// Joins the ranks of `host`, which stay linked by it; `ids` are rank 0's.
    ///
    /// # Errors
    /// When there is no NCCL, the device is no card, a rank is gone, or NCCL refuses.
    pub fn new(device: &Device, ids: &[UniqueId; 2], host: Arc<Host>) -> Result<Self> {
        let Device::Cuda(cuda) = device else {
            return Err(Error::new(format!("NCCL is for cards, not for {}", device.name())));
        };
        // NCCL's own meeting has no time limit: nobody goes there alone.
        host.barrier()?;
        let join = |id: UniqueId, stream, beside| {
            let communicator = Communicator::new(device, stream, host.rank(), host.world(), id)?;
            Ok(Nccl { host: host.clone(), communicator, beside, nanoseconds: AtomicU64::new(0) })
        };
        let beside = join(ids[1], cuda.stream()?, None)?;
        join(ids[0], Stream::COMPUTE, Some(Box::new(beside)))
    }

    fn is_main(&self) -> bool {
        self.beside.is_some()
    }

    fn collective(&self, what: Collective) -> Result<()> {
        let started = Instant::now();
        let done = if self.is_main() { self.communicator.start(what) } else { self.met(what) };
        self.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done
    }

    /// A collective that begins when all ranks are there, and ends or fails in time.
    fn met(&self, what: Collective) -> Result<()> {
        self.host.beside().barrier()?;
        self.communicator.after_compute()?;
        self.communicator.start(what)?;
        let timeout: Duration = self.host.timeout();
        if self.communicator.wait(timeout)? {
            return Ok(());
        }
        let why = format!("a collective between cards did not end within {} s", timeout.as_secs_f64());
        self.abort(&why);
        Err(Error::new(why))
    }
}

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.host.rank()
    }
    fn world(&self) -> usize {
        self.host.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        self.collective(Collective::AllReduce(x, how))
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.collective(Collective::AllGather(x, out))
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.collective(Collective::ReduceScatter(x, out))
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.collective(Collective::Broadcast(parts))
    }
    fn barrier(&self) -> Result<()> {
        if self.is_main() { self.host.barrier() } else { self.host.beside().barrier() }
    }
    fn beside(&self) -> &dyn Comm {
        self.beside.as_deref().unwrap_or(self)
    }
    fn abort(&self, why: &str) {
        self.host.abort(why);
        self.communicator.abort();
        self.beside.iter().for_each(|beside| beside.communicator.abort());
    }
    fn seconds(&self) -> f64 {
        let own = self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9;
        own + self.beside.as_ref().map_or(0.0, |beside| beside.seconds())
    }
}
