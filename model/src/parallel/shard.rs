//! Layout `shard` (ZeRO-3 / FSDP of frozen weights): every rank stores an equal shard of each frozen matrix, and
//! holds the full matrix only around its use.
//!
//! Matrices are gathered by *layer group*: the embedding (group 0), the matrices of each decoder layer (1 to L),
//! the head (L + 1). A batch uses the groups in order; its backward uses them in reverse order, down to layer 1.
//! The current group is gathered in full, the next one is being prefetched, and no other exists: a rank holds 1/N
//! of all matrices and at most two full groups.
//!
//! Between GPUs a gather runs on a separate stream, while the ops of the previous group run. Over host memory
//! (threads on the CPU, on software GPUs or on one GPU, and sockets) a gather has ended when it returns, and
//! nothing overlaps.
//!
//! A gather needs every rank, so all ranks use the same groups in the same order. A rank without a batch, while
//! others have one, joins their gathers.

use super::layout::{Layout, RankLayout};
use crate::checkpoint::{TensorSlice, WeightLoader};
use crate::trainable::Trainable;
use codelsi_engine::comm::PendingGather;
use codelsi_engine::{Ctx, DType, Error, Label, Refetch, Result, Shape, Tensor};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

/// A matrix of a model. A clone is the same memory.
#[derive(Clone)]
pub enum Weight {
    /// Stored in full on this rank (under tensor parallelism: this rank's slice).
    Local(Tensor),
    /// Stored in shards on all ranks.
    Sharded(Arc<ShardedWeight>),
}

impl Weight {
    /// Returns the full matrix, for ops that are launched now. Drop it after them; backward gathers it again.
    ///
    /// # Errors
    /// When it is gathered and a rank is gone, or the device has no memory left.
    pub fn get(&self, cx: &Ctx) -> Result<Tensor> {
        match self {
            Weight::Local(t) => Ok(t.clone()),
            Weight::Sharded(weight) => Ok(weight.gather(cx.is_recording())?.with_refetch(weight.clone())),
        }
    }

    /// Returns the tensor, if it is not sharded.
    pub fn local(&self) -> Option<&Tensor> {
        match self {
            Weight::Local(t) => Some(t),
            Weight::Sharded(_) => None,
        }
    }

    /// Mutable [`Weight::local`].
    pub fn local_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Weight::Local(t) => Some(t),
            Weight::Sharded(_) => None,
        }
    }
}

/// A matrix in shards: the `index`-th of a layer group.
pub struct ShardedWeight {
    shards: Arc<WeightShards>,
    group: usize,
    index: usize,
}

impl ShardedWeight {
    /// Returns the full matrix; `recording` is true when a backward follows or runs.
    fn gather(&self, recording: bool) -> Result<Tensor> {
        self.shards.full(self.group, self.index, recording)
    }
}

impl Refetch for ShardedWeight {
    fn restore(&self) -> Result<Tensor> {
        self.gather(true)
    }
}

/// One rank's shards of all matrices, and the schedule by which they are gathered.
pub struct WeightShards {
    rank_layout: RankLayout,
    /// The head's group.
    last: usize,
    schedule: Mutex<GatherSchedule>,
}

struct GatherSchedule {
    current: Option<GatheredGroup>,
    prefetched: Option<GatheredGroup>,
    /// Indexed by layer group.
    shards: Vec<Vec<Shard>>,
}

/// The matrices of a layer group, gathered or in flight.
struct GatheredGroup {
    group: usize,
    gather: PendingGather,
}

/// This rank's shard of a matrix.
#[derive(Clone)]
struct Shard {
    /// 1/N of the elements in storage order, with zeros after the last.
    elements: Tensor,
    /// Shape of the full matrix.
    full: Shape,
}

impl WeightShards {
    /// Returns an empty set of shards for a model of `layers` layers; `None` in other layouts.
    ///
    /// # Errors
    /// When all weights are to be trained.
    pub fn new(rank_layout: &RankLayout, layers: usize, train: Trainable) -> Result<Option<Arc<Self>>> {
        let last = layers + 1;
        let schedule = GatherSchedule { current: None, prefetched: None, shards: vec![Vec::new(); last + 1] };
        match (rank_layout.layout(), train) {
            (Layout::Replicate | Layout::Tensor, _) => Ok(None),
            (Layout::Shard, Trainable::AllWeights) => Err(Error::new(
                "--layout shard spreads frozen weights, and full training has none: use --layout replicate",
            )),
            (Layout::Shard, _) => Ok(Some(Arc::new(WeightShards {
                rank_layout: rank_layout.clone(),
                last,
                schedule: schedule.into(),
            }))),
        }
    }

    /// Loads this rank's shard of a layer group's next matrix.
    ///
    /// # Errors
    /// See [`WeightLoader::tensor`].
    pub fn load(
        self: &Arc<Self>,
        loader: &WeightLoader,
        group: usize,
        name: &str,
        compute: DType,
    ) -> Result<Weight> {
        let (rank, world) = (self.rank_layout.comm().rank(), self.rank_layout.comm().world());
        let full = loader.shape(name)?;
        let n = full.elements().div_ceil(world);
        let elements = loader.tensor(name, &TensorSlice::Flat(rank * n..(rank + 1) * n), compute)?;
        Ok(self.add(group, Shard { elements, full }))
    }

    /// Returns the embedding's shards again, as the head that is tied to it.
    pub fn tied_head(self: &Arc<Self>) -> Weight {
        let embedding = self.schedule().shards[0][0].clone();
        self.add(self.last, embedding)
    }

    fn add(self: &Arc<Self>, group: usize, shard: Shard) -> Weight {
        let shards = &mut self.schedule().shards[group];
        shards.push(shard);
        Weight::Sharded(Arc::new(ShardedWeight { shards: self.clone(), group, index: shards.len() - 1 }))
    }

    /// Joins the gathers of other ranks' batch without using the matrices; `cx` records if theirs does.
    ///
    /// # Errors
    /// See [`Weight::get`].
    pub fn join_gathers(&self, cx: &Ctx) -> Result<()> {
        self.join_groups(0..=self.last, cx.is_recording())?;
        if cx.is_recording() { self.finish_backward() } else { Ok(()) }
    }

    /// Joins the gathers of other ranks' batch up to the last layer: their pass needs no head, and no backward follows.
    ///
    /// # Errors
    /// See [`Weight::get`].
    pub fn join_hidden_gathers(&self) -> Result<()> {
        self.join_groups(0..=self.last - 1, false)
    }

    fn join_groups(&self, mut groups: RangeInclusive<usize>, recording: bool) -> Result<()> {
        groups.try_for_each(|group| self.advance(&mut self.schedule(), group, recording).map(drop))
    }

    /// Joins the gathers that remain down to layer 1: backward ends early where the first layers have no adapter.
    ///
    /// # Errors
    /// See [`Weight::get`].
    pub fn finish_backward(&self) -> Result<()> {
        let mut schedule = self.schedule();
        let current = schedule.current.as_ref().map_or(0, |current| current.group);
        (1..current).rev().try_for_each(|group| self.advance(&mut schedule, group, true).map(drop))
    }

    /// Returns a full matrix.
    fn full(&self, group: usize, index: usize, recording: bool) -> Result<Tensor> {
        let mut schedule = self.schedule();
        let shape = schedule.shards[group][index].full;
        Ok(self.advance(&mut schedule, group, recording)?.gather.wait(index)?.prefix(shape))
    }

    /// Makes `group` the current one, and begins to prefetch the group that is used after it.
    fn advance<'a>(
        &self,
        schedule: &'a mut GatherSchedule,
        group: usize,
        recording: bool,
    ) -> Result<&'a mut GatheredGroup> {
        let current = match schedule.current.take() {
            Some(current) if current.group == group => current,
            previous => {
                let next = next_group(previous.as_ref().map(|p| p.group), group, self.last, recording);
                // Memory is freed before more is allocated.
                let previous = previous.filter(|previous| previous.group == next);
                let prefetched = schedule.prefetched.take().filter(|prefetched| prefetched.group == group);
                let current = prefetched.map_or_else(|| self.gather(schedule, group), Ok)?;
                schedule.prefetched = Some(previous.map_or_else(|| self.gather(schedule, next), Ok)?);
                current
            }
        };
        Ok(schedule.current.insert(current))
    }

    /// Begins to gather the matrices of a group.
    fn gather(&self, schedule: &GatherSchedule, group: usize) -> Result<GatheredGroup> {
        let (device, comm) = (self.rank_layout.device(), self.rank_layout.comm());
        let shard_and_target = |Shard { elements, .. }: &Shard| {
            let n = comm.world() * elements.shape().elements();
            (elements.clone(), device.empty(Label::Weights, [n], elements.dtype()))
        };
        let gather = comm.all_gather_async(schedule.shards[group].iter().map(shard_and_target).collect())?;
        Ok(GatheredGroup { group, gather })
    }

    fn schedule(&self) -> MutexGuard<'_, GatherSchedule> {
        self.schedule.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Returns the group used after `group`, which follows `previous`: the next in the same direction, turning back at
/// the ends; but the embedding after the head, the last group, where no backward follows (`recording` is false).
fn next_group(previous: Option<usize>, group: usize, last: usize, recording: bool) -> usize {
    match previous {
        _ if group == last && recording => last - 1,
        _ if group == last => 0,
        Some(previous) if previous > group && group > 0 => group - 1,
        _ => group + 1,
    }
}
