//! Saved tensors that backward fetches again instead of keeping: a sharded weight is whole only around its use
//! (ZeRO-3 / FSDP).

use crate::{Ctx, Result, Tensor};
use std::sync::Arc;

/// A source that can produce a tensor's content again, so that nothing keeps it from forward to backward.
pub trait Refetch: Send + Sync {
    /// Returns the tensor with its content.
    ///
    /// # Errors
    /// When it cannot be produced, for example because a rank that holds a shard is gone.
    fn restore(&self, cx: &Ctx) -> Result<Tensor>;
}

/// Saved tensors not kept: the index of each among the saved, and its source.
#[derive(Default)]
pub(super) struct Deferred(Vec<(usize, Arc<dyn Refetch>)>);

impl Deferred {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, index: usize, source: Arc<dyn Refetch>) {
        self.0.push((index, source));
    }

    /// Fetches every deferred tensor and inserts it at its index.
    pub(super) fn restore(&mut self, cx: &Ctx, saved: &mut Vec<Tensor>) -> Result<()> {
        for (index, source) in self.0.drain(..) {
            saved.insert(index, source.restore(cx)?);
        }
        Ok(())
    }
}
