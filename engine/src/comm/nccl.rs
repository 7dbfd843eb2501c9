//! Ranks with one card each: NCCL transfers the tensors, and a host connection supervises the ranks.

use super::communicator::{Collective, Communicator, UniqueId};
use super::heartbeat::Heartbeat;
use super::{Comm, HostComm, PendingGather, ReduceOp};
use crate::cuda::Stream;
use crate::{DType, Device, Error, Label, Result, Tensor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Communicators per run: main, secondary, prefetch.
const LINKS: usize = 3;

impl UniqueId {
    /// Creates the ids of all communicators of a run.
    ///
    /// # Errors
    /// As [`UniqueId::new`].
    pub fn for_run() -> Result<[UniqueId; LINKS]> {
        Ok([UniqueId::new()?, UniqueId::new()?, UniqueId::new()?])
    }

    /// Creates the ids on rank 0 ([`UniqueId::for_run`]) and broadcasts them to all ranks over `host`.
    ///
    /// # Errors
    /// When NCCL is not installed on rank 0, or ranks are gone.
    pub fn broadcast_over(host: &HostComm) -> Result<[UniqueId; LINKS]> {
        let mut ids = Device::cpu().zeros(Label::Scratch, [32 * LINKS], DType::I32);
        if host.rank() == 0 {
            ids.write_bytes(&UniqueId::for_run()?.map(|id| *id.bytes()).concat())?;
        }
        let mut parts = [(0, ids)];
        host.broadcast(&mut parts)?;
        let bytes = parts[0].1.to_bytes()?;
        Ok(std::array::from_fn(|i| UniqueId::from(std::array::from_fn(|j| bytes[128 * i + j]))))
    }
}

/// The communicator of a rank that has one card for itself.
///
/// Collectives of the main link run in the compute stream and return at once; NCCL decides the order of additions. The
/// secondary link has its own stream: a collective waits for the ops before it and blocks until it is done.
/// Asynchronous gathers also have their own link and stream: they wait for the ops before them, and return at
/// once. When a rank is gone, collectives in progress are aborted on the others.
pub struct NcclComm {
    main: NcclLink,
    secondary: NcclLink,
    prefetch: NcclLink,
    _heartbeat: Heartbeat,
}

/// One NCCL communicator, and the state that all links of the rank share.
struct NcclLink {
    host: Arc<HostComm>,
    communicator: Arc<Communicator>,
    /// True when a collective returns only when it is done.
    blocking: bool,
    nanoseconds: AtomicU64,
    /// The reason why the run ended.
    ended: Arc<OnceLock<Error>>,
    /// Number of collectives started on the links that do not block: ranks compare it to see which one hangs.
    started: Arc<AtomicU64>,
}

impl NcclComm {
    /// Connects the ranks of `host`, which continues to supervise them; `ids` are those of rank 0.
    ///
    /// # Errors
    /// When NCCL is not installed, the device is not a card, a rank is gone, or NCCL fails.
    pub fn new(device: &Device, ids: &[UniqueId; LINKS], host: Arc<HostComm>) -> Result<Self> {
        let Device::Cuda(cuda) = device else {
            return Err(Error::new(format!("NCCL is for cards, not for {}", device.name())));
        };
        // NCCL waits for the other ranks without a time limit, so all of them must have arrived first.
        host.barrier()?;
        let (ended, started) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        let link = |id: UniqueId, stream, blocking| {
            let communicator = Arc::new(Communicator::new(cuda, stream, host.rank(), host.world(), id)?);
            let (host, ended, started) = (host.clone(), ended.clone(), started.clone());
            Ok(NcclLink { host, communicator, blocking, nanoseconds: AtomicU64::new(0), ended, started })
        };
        let (main, secondary) = (link(ids[0], Stream::COMPUTE, false)?, link(ids[1], cuda.stream()?, true)?);
        let prefetch = link(ids[2], cuda.stream()?, false)?;
        let communicators = [&main, &secondary, &prefetch].map(|link: &NcclLink| link.communicator.clone());
        let heartbeat = Heartbeat::start(host.clone(), started.clone(), move |why| {
            let _ = ended.set(why);
            communicators.iter().for_each(|communicator| communicator.abort());
        });
        Ok(NcclComm { main, secondary, prefetch, _heartbeat: heartbeat })
    }
}

impl NcclLink {
    fn collective(&self, what: Collective) -> Result<()> {
        let start = Instant::now();
        if !self.blocking {
            self.started.fetch_add(1, Ordering::Relaxed);
        }
        let done = if self.blocking { self.run_to_completion(what) } else { self.communicator.start(what) };
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done.map_err(|e| self.ended.get().cloned().unwrap_or(e))
    }

    /// Runs a collective that begins when all ranks have arrived, and ends or fails in time.
    fn run_to_completion(&self, what: Collective) -> Result<()> {
        self.barrier()?;
        self.communicator.after_compute()?;
        self.communicator.start(what)?;
        let timeout = self.host.timeout();
        if self.communicator.wait(timeout)? {
            return Ok(());
        }
        let why = format!("a collective between cards did not end within {} s", timeout.as_secs_f64());
        self.abort(&why);
        Err(Error::new(why))
    }
}

impl Comm for NcclLink {
    fn rank(&self) -> usize {
        self.host.rank()
    }
    fn world(&self) -> usize {
        self.host.world()
    }
    fn all_reduce(&self, x: &mut Tensor, op: ReduceOp) -> Result<()> {
        self.collective(Collective::AllReduce(x, op))
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.collective(Collective::AllGather(x, out))
    }
    fn all_gather_async(&self, mut gathers: Vec<(Tensor, Tensor)>) -> Result<PendingGather> {
        self.communicator.after_compute()?;
        let result = self.collective(Collective::AllGathers(&mut gathers));
        // Recorded even when only some were started, since their tensors must stay alive until they are done.
        let (cuda, event) = self.communicator.record_end()?;
        let pending = PendingGather::until(gathers, cuda, event);
        result.map(|()| pending)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.collective(Collective::ReduceScatter(x, out))
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.collective(Collective::Broadcast(parts))
    }
    fn barrier(&self) -> Result<()> {
        if self.blocking { self.host.secondary().barrier() } else { self.host.barrier() }
    }
    fn secondary(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, why: &str) {
        self.host.abort(why);
        self.communicator.abort();
    }
    fn seconds(&self) -> f64 {
        self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9
    }
}

impl Comm for NcclComm {
    fn rank(&self) -> usize {
        self.main.rank()
    }
    fn world(&self) -> usize {
        self.main.world()
    }
    fn all_reduce(&self, x: &mut Tensor, op: ReduceOp) -> Result<()> {
        self.main.all_reduce(x, op)
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.main.all_gather(x, out)
    }
    fn all_gather_async(&self, gathers: Vec<(Tensor, Tensor)>) -> Result<PendingGather> {
        self.prefetch.all_gather_async(gathers)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.main.reduce_scatter(x, out)
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.main.broadcast(parts)
    }
    fn barrier(&self) -> Result<()> {
        self.main.barrier()
    }
    fn secondary(&self) -> &dyn Comm {
        &self.secondary
    }
    fn abort(&self, why: &str) {
        self.main.abort(why);
        self.secondary.communicator.abort();
        self.prefetch.communicator.abort();
    }
    fn seconds(&self) -> f64 {
        self.main.seconds() + self.secondary.seconds() + self.prefetch.seconds()
    }
}
