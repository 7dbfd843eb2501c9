//! Layout shard: a frozen matrix lies in equal parts on all ranks, and is whole on a rank only around its use.
//!
//! A batch visits *stops* in order: the embedding (0), the matrices of each layer (1 to L), the head (L + 1); its backward
//! comes down again, to layer 1. At a stop its matrices are whole, those of the stop to come are being gathered, and no
//! others exist: a rank holds 1/N of everything and at most two stops.
//!
//! Between cards of their own a gather runs on a stream beside the ops of the stop before. Over host memory (threads on the
//! CPU, on software GPUs or on one card, and sockets) it is over when it returns, and nothing overlaps.
//!
//! A gather needs every rank, so all ranks visit the same stops in the same order. A rank without a batch while others
//! have one walks all the same.

use super::{Layout, Split};
use crate::llama::Train;
use crate::loading::Loading;
use crate::part::Part;
use codelsi_engine::comm::Coming;
use codelsi_engine::{Ctx, DType, Error, Label, Origin, Result, Shape, Tensor};
use std::sync::{Arc, Mutex, MutexGuard};

/// A matrix of a model.
pub enum Weight {
    /// Whole on this rank.
    Here(Tensor),
    /// In parts on all ranks.
    Parted(Arc<Parted>),
}

impl Weight {
    /// The whole matrix, for ops that are put on the device now. Drop it after them; backward fetches it again.
    ///
    /// # Errors
    /// When it is gathered and a rank is gone, or the device has no memory left.
    pub fn get(&self, cx: &Ctx) -> Result<Tensor> {
        match self {
            Weight::Here(t) => Ok(t.clone()),
            Weight::Parted(parted) => Ok(parted.fetch(cx)?.with_origin(parted.clone())),
        }
    }

    /// The tensor, where it is whole on this rank.
    pub fn here(&self) -> Option<&Tensor> {
        match self {
            Weight::Here(t) => Some(t),
            Weight::Parted(_) => None,
        }
    }

    /// [`Weight::here`], to be written.
    pub fn here_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Weight::Here(t) => Some(t),
            Weight::Parted(_) => None,
        }
    }
}

/// A matrix in parts: one of a stop's.
pub struct Parted {
    shards: Arc<Shards>,
    stop: usize,
    index: usize,
}

impl Origin for Parted {
    fn fetch(&self, cx: &Ctx) -> Result<Tensor> {
        self.shards.matrix(cx, self.stop, self.index)
    }
}

/// One rank's parts of all matrices, and what is whole of them now.
pub struct Shards {
    split: Split,
    /// The stop of the head.
    last: usize,
    walk: Mutex<Walk>,
}

struct Walk {
    /// Where this rank is, and where it will be.
    here: Option<Visit>,
    ahead: Option<Visit>,
    /// Of each stop.
    parts: Vec<Vec<Stored>>,
}

/// The matrices of a stop, whole or on their way.
struct Visit {
    stop: usize,
    coming: Coming,
}

/// What this rank keeps of a matrix.
#[derive(Clone)]
struct Stored {
    /// 1/N of the elements in storage order, with zeros after the last.
    part: Tensor,
    /// Of the whole.
    shape: Shape,
}

impl Shards {
    /// For a model of `layers` layers, none of which is loaded; none in other layouts.
    ///
    /// # Errors
    /// When every weight is to be trained.
    pub fn new(split: &Split, layers: usize, train: Train) -> Result<Option<Arc<Self>>> {
        let last = layers + 1;
        let walk = Walk { here: None, ahead: None, parts: vec![Vec::new(); last + 1] };
        match (split.layout(), train) {
            (Layout::Replicate | Layout::Tensor, _) => Ok(None),
            (Layout::Shard, Train::Nothing | Train::Adapters) => {
                Ok(Some(Arc::new(Shards { split: split.clone(), last, walk: Mutex::new(walk) })))
            }
            (Layout::Shard, Train::Everything) => Err(Error::new(
                "--layout shard spreads frozen weights, and full training has none: use --layout replicate",
            )),
        }
    }

    /// Loads this rank's part of a matrix, the next one of a stop.
    ///
    /// # Errors
    /// As [`Loading::tensor`].
    pub fn load(
        self: &Arc<Self>,
        loading: &Loading,
        stop: usize,
        name: &str,
        compute: DType,
    ) -> Result<Weight> {
        let (rank, world) = (self.split.comm().rank(), self.split.comm().world());
        let shape = loading.shape(name)?;
        let share = shape.elements().div_ceil(world);
        let part = loading.tensor(name, &Part::Flat(rank * share..(rank + 1) * share), compute)?;
        Ok(self.add(stop, Stored { part, shape }))
    }

    /// The embedding once more, as the head.
    pub fn tied(self: &Arc<Self>) -> Weight {
        let embedding = self.walk().parts[0][0].clone();
        self.add(self.last, embedding)
    }

    fn add(self: &Arc<Self>, stop: usize, stored: Stored) -> Weight {
        let parts = &mut self.walk().parts[stop];
        parts.push(stored);
        Weight::Parted(Arc::new(Parted { shards: self.clone(), stop, index: parts.len() - 1 }))
    }

    /// Visits every stop, as the batch of another rank does that runs in such a context.
    ///
    /// # Errors
    /// As [`Weight::get`].
    pub fn walk_idly(&self, cx: &Ctx) -> Result<()> {
        for stop in 0..=self.last {
            self.visit(&mut self.walk(), cx, stop)?;
        }
        if cx.records() { self.come_down(cx) } else { Ok(()) }
    }

    /// Visits what is left of the way down to layer 1: backward ends early where the first layers have no adapter.
    ///
    /// # Errors
    /// As [`Weight::get`].
    pub fn come_down(&self, cx: &Ctx) -> Result<()> {
        let mut walk = self.walk();
        let here = walk.here.as_ref().map_or(0, |visit| visit.stop);
        (1..here).rev().try_for_each(|stop| self.visit(&mut walk, cx, stop).map(drop))
    }

    fn matrix(&self, cx: &Ctx, stop: usize, index: usize) -> Result<Tensor> {
        let mut walk = self.walk();
        let shape = walk.parts[stop][index].shape;
        Ok(self.visit(&mut walk, cx, stop)?.coming.get(index)?.first(shape))
    }

    /// Goes to stop `to`, and has the matrices of the one after it gathered.
    fn visit<'a>(&self, walk: &'a mut Walk, cx: &Ctx, to: usize) -> Result<&'a mut Visit> {
        let here = match walk.here.take() {
            Some(here) if here.stop == to => here,
            left => {
                let next = next(left.as_ref().map(|left| left.stop), to, self.last, cx.records());
                // Memory is given back before more is taken.
                let left = left.filter(|left| left.stop == next);
                let ahead = walk.ahead.take().filter(|ahead| ahead.stop == to);
                let here = ahead.map_or_else(|| self.gather(walk, to), Ok)?;
                walk.ahead = Some(left.map_or_else(|| self.gather(walk, next), Ok)?);
                here
            }
        };
        Ok(walk.here.insert(here))
    }

    /// Begins to gather the matrices of a stop.
    fn gather(&self, walk: &Walk, stop: usize) -> Result<Visit> {
        let (device, comm) = (self.split.device(), self.split.comm());
        let gather = |Stored { part, .. }: &Stored| {
            let elements = comm.world() * part.shape().elements();
            (part.clone(), device.empty(Label::Weights, [elements], part.dtype()))
        };
        let coming = comm.gather_ahead(walk.parts[stop].iter().map(gather).collect())?;
        Ok(Visit { stop, coming })
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The stop after `to`, to which one came from `from`: on in the same direction, and back at the ends; but from the head, the
/// last, to the embedding where no backward follows (`records` is false).
fn next(from: Option<usize>, to: usize, last: usize, records: bool) -> usize {
    match from {
        _ if to == last && records => last - 1,
        _ if to == last => 0,
        Some(from) if from > to && to > 0 => to - 1,
        _ => to + 1,
    }
}
