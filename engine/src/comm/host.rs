//! Collectives through host memory, over threads or sockets.

use super::{Comm, ReduceOp};
use crate::{DType, Elem, Error, Result, Tensor};
use half::bf16;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The kind of a collective.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum CollectiveKind {
    Sum,
    Max,
    Gather,
    Scatter,
    Broadcast,
    Barrier,
}

impl CollectiveKind {
    pub(super) const ALL: [CollectiveKind; 6] = [
        CollectiveKind::Sum,
        CollectiveKind::Max,
        CollectiveKind::Gather,
        CollectiveKind::Scatter,
        CollectiveKind::Broadcast,
        CollectiveKind::Barrier,
    ];

    fn name(self) -> &'static str {
        ["all_reduce", "all_reduce (max)", "all_gather", "reduce_scatter", "broadcast", "barrier"]
            [self as usize]
    }
}

/// One collective call. Ranks compare their calls before they use each other's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Call {
    pub kind: CollectiveKind,
    pub dtype: DType,
    /// Number of calls before it on this link.
    pub number: u64,
    /// Sending rank and number of bytes of each part: the tensors of a broadcast in order, or one part per rank.
    pub parts: Vec<(usize, usize)>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.parts.iter().map(|(_, bytes)| bytes).sum();
        write!(f, "{} of {bytes} bytes of {:?} as call {}", self.kind.name(), self.dtype, self.number)
    }
}

impl Call {
    /// Number of bytes that `rank` sends.
    pub(super) fn sent_by(&self, rank: usize) -> usize {
        self.parts.iter().filter(|(owner, _)| *owner == rank).map(|(_, bytes)| bytes).sum()
    }

    /// Fails when `other`, the call of rank `other_rank` at the same point of the run, differs.
    pub(super) fn ensure_same(&self, rank: usize, other: &Call, other_rank: usize) -> Result<()> {
        match self == other {
            true => Ok(()),
            false => Err(Error::new(format!(
                "ranks diverged: rank {rank} is in {self}, rank {other_rank} in {other}"
            ))),
        }
    }

    /// Computes the bytes that `rank` receives when rank r sends `inputs[r]`.
    pub(super) fn result_for<B: AsRef<[u8]>>(&self, inputs: &[B], rank: usize) -> Result<Vec<u8>> {
        let inputs: Vec<&[u8]> = inputs.iter().map(AsRef::as_ref).collect();
        let length = inputs[0].len();
        match self.kind {
            CollectiveKind::Sum => reduce(&inputs, self.dtype, 0..length, ReduceOp::Sum),
            CollectiveKind::Max => reduce(&inputs, self.dtype, 0..length, ReduceOp::Max),
            CollectiveKind::Gather => Ok(inputs.concat()),
            CollectiveKind::Scatter => {
                let part = length / inputs.len();
                reduce(&inputs, self.dtype, rank * part..(rank + 1) * part, ReduceOp::Sum)
            }
            CollectiveKind::Broadcast => {
                let mut rest = inputs;
                let mut received = Vec::new();
                for &(owner, bytes) in &self.parts {
                    let (part, after) = rest[owner].split_at(bytes);
                    rest[owner] = after;
                    received.extend_from_slice(if owner == rank { &[] } else { part });
                }
                Ok(received)
            }
            CollectiveKind::Barrier => Ok(Vec::new()),
        }
    }
}

/// A transport of bytes between ranks.
pub(super) trait Link: Send + Sync {
    fn rank(&self) -> usize;
    fn world(&self) -> usize;
    /// Sends `input` and returns the bytes that this rank receives from `call`.
    fn exchange(&self, call: Call, input: Vec<u8>) -> Result<Vec<u8>>;
    /// Time that a rank waits for the others.
    fn timeout(&self) -> Duration;
    fn abort(&self, why: &str);
}

/// A communicator through host memory, for tensors of any device.
pub struct HostComm {
    link: Box<dyn Link>,
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    /// The secondary communicator and the one for heartbeats; `None` in these themselves.
    others: Option<[Box<HostComm>; 2]>,
}

impl HostComm {
    pub(super) fn new([main, secondary, heartbeat]: [impl Link + 'static; 3]) -> Self {
        let new = |link: Box<dyn Link>, others| HostComm {
            link,
            calls: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            others,
        };
        let others = [Box::new(new(Box::new(secondary), None)), Box::new(new(Box::new(heartbeat), None))];
        new(Box::new(main), Some(others))
    }

    /// The communicator for heartbeats.
    pub(super) fn heartbeat(&self) -> &HostComm {
        self.others.as_ref().map_or(self, |[_, heartbeat]| heartbeat)
    }

    /// Time that a rank waits for the others.
    pub fn timeout(&self) -> Duration {
        self.link.timeout()
    }

    fn call(
        &self,
        kind: CollectiveKind,
        dtype: DType,
        parts: Vec<(usize, usize)>,
        input: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let started = Instant::now();
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let result = self.link.exchange(Call { kind, dtype, number, parts }, input()?);
        self.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// Makes a call in which every rank sends a tensor of the size and type of `x`.
    fn symmetric_call(&self, kind: CollectiveKind, x: &Tensor) -> Result<Vec<u8>> {
        if x.dtype() == DType::I32 && kind != CollectiveKind::Gather {
            return Err(Error::new("integers are not reduced over ranks"));
        }
        let parts = (0..self.world()).map(|rank| (rank, x.byte_len())).collect();
        self.call(kind, x.dtype(), parts, || x.to_bytes())
    }
}

impl Comm for HostComm {
    fn rank(&self) -> usize {
        self.link.rank()
    }

    fn world(&self) -> usize {
        self.link.world()
    }

    fn all_reduce(&self, x: &mut Tensor, op: ReduceOp) -> Result<()> {
        let kind = if op == ReduceOp::Sum { CollectiveKind::Sum } else { CollectiveKind::Max };
        let reduced = self.symmetric_call(kind, x)?;
        x.write_bytes(&reduced)
    }

    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.write_bytes(&self.symmetric_call(CollectiveKind::Gather, x)?)
    }

    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.write_bytes(&self.symmetric_call(CollectiveKind::Scatter, x)?)
    }

    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        let rank = self.rank();
        let Some((_, first)) = parts.first() else { return Ok(()) };
        let sizes = parts.iter().map(|(owner, t)| (*owner, t.byte_len())).collect();
        let input = || {
            let input = parts.iter().filter(|(owner, _)| *owner == rank);
            input.map(|(_, t)| t.to_bytes()).collect::<Result<Vec<_>>>().map(|all| all.concat())
        };
        let received = self.call(CollectiveKind::Broadcast, first.dtype(), sizes, input)?;
        let mut rest = &received[..];
        for (_, t) in parts.iter_mut().filter(|(owner, _)| *owner != rank) {
            let (bytes, after) = rest.split_at(t.byte_len());
            t.write_bytes(bytes)?;
            rest = after;
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.call(CollectiveKind::Barrier, DType::I32, Vec::new(), || Ok(Vec::new())).map(drop)
    }

    fn secondary(&self) -> &dyn Comm {
        self.others.as_ref().map_or(self, |[secondary, _]| &**secondary)
    }

    fn abort(&self, why: &str) {
        self.link.abort(why);
        self.others.iter().flatten().for_each(|others| others.link.abort(why));
    }

    fn seconds(&self) -> f64 {
        let own = self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9;
        own + self.others.as_ref().map_or(0.0, |[secondary, _]| secondary.seconds())
    }
}

/// Reduces `range` of the ranks' bytes, in rank order.
fn reduce(inputs: &[&[u8]], dtype: DType, range: Range<usize>, op: ReduceOp) -> Result<Vec<u8>> {
    let inputs = inputs.iter().map(|bytes| &bytes[range.clone()]);
    match dtype {
        DType::F32 => Ok(reduce_as::<f32>(inputs, op, |x| x, |x| x)),
        DType::BF16 => Ok(reduce_as::<bf16>(inputs, op, bf16::to_f32, bf16::from_f32)),
        DType::I32 => Err(Error::new("integers are not reduced over ranks")),
    }
}

fn reduce_as<'a, T: Elem>(
    inputs: impl Iterator<Item = &'a [u8]>,
    op: ReduceOp,
    widen: fn(T) -> f32,
    round: fn(f32) -> T,
) -> Vec<u8> {
    let values = |bytes: &'a [u8]| {
        bytes.chunks_exact(size_of::<T>()).map(move |x| widen(bytemuck::pod_read_unaligned(x)))
    };
    let mut sum: Option<Vec<f32>> = None;
    for bytes in inputs {
        match &mut sum {
            None => sum = Some(values(bytes).collect()),
            Some(sum) => sum.iter_mut().zip(values(bytes)).for_each(|(s, x)| match op {
                ReduceOp::Sum => *s += x,
                ReduceOp::Max => *s = s.max(x),
            }),
        }
    }
    let rounded: Vec<T> = sum.unwrap_or_default().into_iter().map(round).collect();
    bytemuck::cast_slice(&rounded).to_vec()
}
