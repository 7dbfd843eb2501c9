//! Asynchronous gathers, which overlap with ops.

use crate::cuda::{Cuda, Event, Stream};
use crate::{Result, Tensor};
use std::sync::Arc;

/// The tensors of an asynchronous gather, which may still be in progress; keeps inputs and outputs alive until then.
pub struct PendingGather {
    /// This rank's part and the gathered tensor, for each gather.
    gathers: Vec<(Tensor, Tensor)>,
    /// The event after which all tensors are complete; `None` once ops wait for it.
    completion: Option<(Arc<Cuda>, Event)>,
}

impl PendingGather {
    /// Returns gathers that are complete.
    pub(super) fn complete(gathers: Vec<(Tensor, Tensor)>) -> Self {
        PendingGather { gathers, completion: None }
    }

    /// Returns gathers that are complete when `event` has happened.
    pub(super) fn until(gathers: Vec<(Tensor, Tensor)>, cuda: Arc<Cuda>, event: Event) -> Self {
        PendingGather { gathers, completion: Some((cuda, event)) }
    }

    /// Returns the tensor of gather `i` for ops from now on. On a card they wait for the gather in their stream; the
    /// host does not wait.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn wait(&mut self, i: usize) -> Result<&Tensor> {
        self.wait_on_device()?;
        Ok(&self.gathers[i].1)
    }

    /// Makes later ops wait for the gather.
    fn wait_on_device(&mut self) -> Result<()> {
        if let Some((cuda, event)) = &self.completion {
            cuda.wait(Stream::COMPUTE, event)?;
            self.completion = None;
        }
        Ok(())
    }
}

impl Drop for PendingGather {
    fn drop(&mut self) {
        // Memory is freed in stream order, so not before the gather is over. A device that cannot wait has failed.
        let _ = self.wait_on_device();
    }
}
