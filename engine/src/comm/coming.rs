//! Gathers that go on while ops compute.

use crate::cuda::{Cuda, Event, Stream};
use crate::{Result, Tensor};
use std::sync::Arc;

/// Gathered tensors, perhaps still on their way. It keeps what is read and written until the gather is over.
pub struct Coming {
    /// A rank's part, and what all ranks' parts fill.
    gathers: Vec<(Tensor, Tensor)>,
    /// Happens when all is there; none when it is.
    arrival: Option<(Arc<Cuda>, Event)>,
}

impl Coming {
    /// Tensors that have their content.
    pub(super) fn here(gathers: Vec<(Tensor, Tensor)>) -> Self {
        Coming { gathers, arrival: None }
    }

    /// Tensors that have it when `event` has happened.
    pub(super) fn at(gathers: Vec<(Tensor, Tensor)>, cuda: Arc<Cuda>, event: Event) -> Self {
        Coming { gathers, arrival: Some((cuda, event)) }
    }

    /// The tensor of gather `i`, for ops from now on: those of a card wait there for the gather, the host does not.
    ///
    /// # Errors
    /// The driver's.
    pub fn get(&mut self, i: usize) -> Result<&Tensor> {
        self.arrive()?;
        Ok(&self.gathers[i].1)
    }

    fn arrive(&mut self) -> Result<()> {
        if let Some((cuda, event)) = &self.arrival {
            cuda.wait(Stream::COMPUTE, event)?;
            self.arrival = None;
        }
        Ok(())
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // Memory is freed in the order of ops: not before the gather is over. A device that cannot wait has failed.
        let _ = self.arrive();
    }
}
