//! Ranks on cards of their own: NCCL carries the tensors, a link through the host keeps the ranks together.

use super::communicator::{Collective, Communicator, UniqueId};
use super::watch::Watch;
use super::{Coming, Comm, Host, Reduce};
use crate::cuda::Stream;
use crate::{DType, Device, Error, Label, Result, Tensor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Links of a run.
const LINKS: usize = 3;

impl UniqueId {
    /// Those of all links of a run.
    ///
    /// # Errors
    /// As [`UniqueId::new`].
    pub fn of_run() -> Result<[UniqueId; LINKS]> {
        Ok([UniqueId::new()?, UniqueId::new()?, UniqueId::new()?])
    }

    /// [`UniqueId::of_run`] of rank 0, told to every rank over `host`.
    ///
    /// # Errors
    /// When rank 0 has no NCCL, or ranks are gone.
    pub fn told_over(host: &Host) -> Result<[UniqueId; LINKS]> {
        let mut ids = Device::cpu().zeros(Label::Scratch, [32 * LINKS], DType::I32);
        if host.rank() == 0 {
            ids.write_bytes(&UniqueId::of_run()?.map(|id| *id.bytes()).concat())?;
        }
        let mut told = [(0, ids)];
        host.broadcast(&mut told)?;
        let bytes = told[0].1.to_bytes()?;
        Ok(std::array::from_fn(|i| UniqueId::from(std::array::from_fn(|j| bytes[128 * i + j]))))
    }
}

/// One rank with a card.
///
/// Sums and gathers of the main link are put into the stream of ops and return at once; their order of addition is
/// NCCL's. The link beside has a stream of its own: it waits for the ops before it, and returns when it is done. Gathers
/// ahead have a link and a stream of their own too: they wait for the ops before them, and return at once. When a rank is
/// gone, collectives under way are ended on the others.
pub struct Nccl {
    main: Lane,
    beside: Lane,
    ahead: Lane,
    _watch: Watch,
}

/// One link.
struct Lane {
    host: Arc<Host>,
    communicator: Arc<Communicator>,
    /// Whether its calls return when they are done.
    waits: bool,
    nanoseconds: AtomicU64,
    /// Why there will be no further call.
    ended: Arc<OnceLock<Error>>,
    /// Collectives started on the links that do not wait: by it the ranks see who hangs.
    come: Arc<AtomicU64>,
}

impl Nccl {
    /// Joins the ranks of `host`, which stay linked by it; `ids` are rank 0's.
    ///
    /// # Errors
    /// When there is no NCCL, the device is no card, a rank is gone, or NCCL refuses.
    pub fn new(device: &Device, ids: &[UniqueId; LINKS], host: Arc<Host>) -> Result<Self> {
        let Device::Cuda(cuda) = device else {
            return Err(Error::new(format!("NCCL is for cards, not for {}", device.name())));
        };
        // NCCL's own meeting has no time limit: nobody goes there alone.
        host.barrier()?;
        let (ended, come) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        let lane = |id: UniqueId, stream, waits| {
            let communicator = Arc::new(Communicator::new(cuda, stream, host.rank(), host.world(), id)?);
            let (host, ended, come) = (host.clone(), ended.clone(), come.clone());
            Ok(Lane { host, communicator, waits, nanoseconds: AtomicU64::new(0), ended, come })
        };
        let (main, beside) = (lane(ids[0], Stream::COMPUTE, false)?, lane(ids[1], cuda.stream()?, true)?);
        let ahead = lane(ids[2], cuda.stream()?, false)?;
        let communicators = [&main, &beside, &ahead].map(|lane: &Lane| lane.communicator.clone());
        let watch = Watch::start(host.clone(), come.clone(), move |why| {
            let _ = ended.set(why);
            communicators.iter().for_each(|communicator| communicator.abort());
        });
        Ok(Nccl { main, beside, ahead, _watch: watch })
    }
}

impl Lane {
    fn collective(&self, what: Collective) -> Result<()> {
        let started = Instant::now();
        if !self.waits {
            self.come.fetch_add(1, Ordering::Relaxed);
        }
        let done = if self.waits { self.met(what) } else { self.communicator.start(what) };
        self.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done.map_err(|e| self.ended.get().cloned().unwrap_or(e))
    }

    /// A collective that begins when all ranks are there, and ends or fails in time.
    fn met(&self, what: Collective) -> Result<()> {
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

impl Comm for Lane {
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
    fn gather_ahead(&self, mut gathers: Vec<(Tensor, Tensor)>) -> Result<Coming> {
        self.communicator.after_compute()?;
        let started = self.collective(Collective::AllGathers(&mut gathers));
        // Also where only some were started: what they touch is kept until they are over.
        let (cuda, event) = self.communicator.end()?;
        let coming = Coming::at(gathers, cuda, event);
        started.map(|()| coming)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.collective(Collective::ReduceScatter(x, out))
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.collective(Collective::Broadcast(parts))
    }
    fn barrier(&self) -> Result<()> {
        if self.waits { self.host.beside().barrier() } else { self.host.barrier() }
    }
    fn beside(&self) -> &dyn Comm {
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

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.main.rank()
    }
    fn world(&self) -> usize {
        self.main.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        self.main.all_reduce(x, how)
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.main.all_gather(x, out)
    }
    fn gather_ahead(&self, gathers: Vec<(Tensor, Tensor)>) -> Result<Coming> {
        self.ahead.gather_ahead(gathers)
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
    fn beside(&self) -> &dyn Comm {
        &self.beside
    }
    fn abort(&self, why: &str) {
        self.main.abort(why);
        self.beside.communicator.abort();
        self.ahead.communicator.abort();
    }
    fn seconds(&self) -> f64 {
        self.main.seconds() + self.beside.seconds() + self.ahead.seconds()
    }
}
