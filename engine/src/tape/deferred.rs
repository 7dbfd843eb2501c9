//! Saved tensors that backward fetches again instead of keeping: a sharded weight is gathered only around its use
//! (ZeRO-3 / FSDP).

use crate::Result;
use crate::tensor::{Refetch, Tensor};
use std::sync::Arc;

/// The saved tensors that are not kept: the index of each among all saved ones, and its source.
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
    pub(super) fn restore(&mut self, saved: &mut Vec<Tensor>) -> Result<()> {
        for (index, source) in self.0.drain(..) {
            saved.insert(index, source.restore()?);
        }
        Ok(())
    }
}
