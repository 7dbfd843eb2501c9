//! Collectives through host memory: what threads and sockets have in common.

use super::{Comm, Reduce};
use crate::{DType, Elem, Error, Result, Tensor};
use half::bf16;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is done with the ranks' bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Sum,
    Max,
    Gather,
    Scatter,
    Broadcast,
    Barrier,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] =
        [Kind::Sum, Kind::Max, Kind::Gather, Kind::Scatter, Kind::Broadcast, Kind::Barrier];

    fn name(self) -> &'static str {
        ["all_reduce", "all_reduce (max)", "all_gather", "reduce_scatter", "broadcast", "barrier"]
            [self as usize]
    }
}

/// One collective. Ranks compare it before they touch each other's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Call {
    pub kind: Kind,
    pub dtype: DType,
    /// How many came before it on this link.
    pub number: u64,
    /// Bytes by the rank that gives them: those of a broadcast's tensors in order, or every rank's own.
    pub parts: Vec<(usize, usize)>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.parts.iter().map(|(_, bytes)| bytes).sum();
        write!(f, "{} of {bytes} bytes of {:?} as call {}", self.kind.name(), self.dtype, self.number)
    }
}

impl Call {
    /// Bytes that `rank` gives.
    pub(super) fn given(&self, rank: usize) -> usize {
        self.parts.iter().filter(|(owner, _)| *owner == rank).map(|(_, bytes)| bytes).sum()
    }

    /// Refuses `theirs`, the call of rank `them` at the same point of the run.
    pub(super) fn agree(&self, us: usize, theirs: &Call, them: usize) -> Result<()> {
        match self == theirs {
            true => Ok(()),
            false => {
                Err(Error::new(format!("ranks went apart: rank {us} is in {self}, rank {them} in {theirs}")))
            }
        }
    }

    /// What `rank` gets when rank r gives `given[r]`.
    pub(super) fn outcome<B: AsRef<[u8]>>(&self, given: &[B], rank: usize) -> Result<Vec<u8>> {
        let given: Vec<&[u8]> = given.iter().map(AsRef::as_ref).collect();
        let length = given[0].len();
        match self.kind {
            Kind::Sum => reduce(&given, self.dtype, 0..length, Reduce::Sum),
            Kind::Max => reduce(&given, self.dtype, 0..length, Reduce::Max),
            Kind::Gather => Ok(given.concat()),
            Kind::Scatter => {
                let part = length / given.len();
                reduce(&given, self.dtype, rank * part..(rank + 1) * part, Reduce::Sum)
            }
            Kind::Broadcast => {
                let mut rest = given;
                let mut received = Vec::new();
                for &(owner, bytes) in &self.parts {
                    let (part, after) = rest[owner].split_at(bytes);
                    rest[owner] = after;
                    received.extend_from_slice(if owner == rank { &[] } else { part });
                }
                Ok(received)
            }
            Kind::Barrier => Ok(Vec::new()),
        }
    }
}

/// A way for bytes between ranks.
pub(super) trait Link: Send + Sync {
    fn rank(&self) -> usize;
    fn world(&self) -> usize;
    /// What `call` gives this rank, which gives `mine`.
    fn exchange(&self, call: Call, mine: Vec<u8>) -> Result<Vec<u8>>;
    /// How long a rank waits for the others.
    fn timeout(&self) -> Duration;
    fn abort(&self, why: &str);
}

/// Ranks that exchange tensors, of whatever device, through host memory.
pub struct Host {
    link: Box<dyn Link>,
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    /// The second link, and the one by which ranks see that the others live; those have none themselves.
    further: Option<[Box<Host>; 2]>,
}

impl Host {
    pub(super) fn new([main, beside, pulse]: [impl Link + 'static; 3]) -> Self {
        let one = |link: Box<dyn Link>, further| Host {
            link,
            calls: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            further,
        };
        let further = [Box::new(one(Box::new(beside), None)), Box::new(one(Box::new(pulse), None))];
        one(Box::new(main), Some(further))
    }

    /// The link by which ranks see that the others live.
    pub(super) fn pulse(&self) -> &Host {
        self.further.as_ref().map_or(self, |[_, pulse]| pulse)
    }

    /// How long a rank waits for the others.
    pub fn timeout(&self) -> Duration {
        self.link.timeout()
    }

    fn call(
        &self,
        kind: Kind,
        dtype: DType,
        parts: Vec<(usize, usize)>,
        mine: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let started = Instant::now();
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let result = self.link.exchange(Call { kind, dtype, number, parts }, mine()?);
        self.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// A call in which every rank gives a tensor like `x`.
    fn alike(&self, kind: Kind, x: &Tensor) -> Result<Vec<u8>> {
        if x.dtype() == DType::I32 && kind != Kind::Gather {
            return Err(Error::new("integers are not reduced over ranks"));
        }
        let parts = (0..self.world()).map(|rank| (rank, x.byte_len())).collect();
        self.call(kind, x.dtype(), parts, || x.to_bytes())
    }
}

impl Comm for Host {
    fn rank(&self) -> usize {
        self.link.rank()
    }

    fn world(&self) -> usize {
        self.link.world()
    }

    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        let kind = if how == Reduce::Sum { Kind::Sum } else { Kind::Max };
        let reduced = self.alike(kind, x)?;
        x.write_bytes(&reduced)
    }

    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.write_bytes(&self.alike(Kind::Gather, x)?)
    }

    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.write_bytes(&self.alike(Kind::Scatter, x)?)
    }

    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        let rank = self.rank();
        let Some((_, first)) = parts.first() else { return Ok(()) };
        let sizes = parts.iter().map(|(owner, t)| (*owner, t.byte_len())).collect();
        let mine = || {
            let mine = parts.iter().filter(|(owner, _)| *owner == rank);
            mine.map(|(_, t)| t.to_bytes()).collect::<Result<Vec<_>>>().map(|all| all.concat())
        };
        let received = self.call(Kind::Broadcast, first.dtype(), sizes, mine)?;
        let mut rest = &received[..];
        for (_, t) in parts.iter_mut().filter(|(owner, _)| *owner != rank) {
            let (bytes, after) = rest.split_at(t.byte_len());
            t.write_bytes(bytes)?;
            rest = after;
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.call(Kind::Barrier, DType::I32, Vec::new(), || Ok(Vec::new())).map(drop)
    }

    fn beside(&self) -> &dyn Comm {
        self.further.as_ref().map_or(self, |[beside, _]| &**beside)
    }

    fn abort(&self, why: &str) {
        self.link.abort(why);
        self.further.iter().flatten().for_each(|further| further.link.abort(why));
    }

    fn seconds(&self) -> f64 {
        let own = self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9;
        own + self.further.as_ref().map_or(0.0, |[beside, _]| beside.seconds())
    }
}

/// What `range` of the ranks' bytes reduces to, in rank order.
fn reduce(given: &[&[u8]], dtype: DType, range: Range<usize>, how: Reduce) -> Result<Vec<u8>> {
    let given = given.iter().map(|bytes| &bytes[range.clone()]);
    match dtype {
        DType::F32 => Ok(reduce_as::<f32>(given, how, |x| x, |x| x)),
        DType::BF16 => Ok(reduce_as::<bf16>(given, how, bf16::to_f32, bf16::from_f32)),
        DType::I32 => Err(Error::new("integers are not reduced over ranks")),
    }
}

fn reduce_as<'a, T: Elem>(
    given: impl Iterator<Item = &'a [u8]>,
    how: Reduce,
    widen: fn(T) -> f32,
    round: fn(f32) -> T,
) -> Vec<u8> {
    let values = |bytes: &'a [u8]| {
        bytes.chunks_exact(size_of::<T>()).map(move |x| widen(bytemuck::pod_read_unaligned(x)))
    };
    let mut sum: Option<Vec<f32>> = None;
    for bytes in given {
        match &mut sum {
            None => sum = Some(values(bytes).collect()),
            Some(sum) => sum.iter_mut().zip(values(bytes)).for_each(|(s, x)| match how {
                Reduce::Sum => *s += x,
                Reduce::Max => *s = s.max(x),
            }),
        }
    }
    let rounded: Vec<T> = sum.unwrap_or_default().into_iter().map(round).collect();
    bytemuck::cast_slice(&rounded).to_vec()
}
