//! Gradients by tensor, and the consumers that backward hands them to.

use super::accumulate;
use crate::tensor::TensorId;
use crate::{Result, Tensor};
use std::collections::BTreeMap;

/// Consumer of backward's results. [`Grads`] collects them; a closure gets each leaf's gradient as soon as it is final,
/// so that work on it (a reduction over ranks) overlaps with the rest of backward.
pub trait GradSink {
    /// Takes the gradient of the leaf `id`. A leaf that several checkpointed segments capture, without taking it as an
    /// input, is handed over once by each of them: add those up.
    ///
    /// # Errors
    /// When the consumer fails; backward then ends with its error.
    fn take_gradient(&mut self, id: TensorId, gradient: Tensor) -> Result<()>;
}

impl<F: FnMut(TensorId, Tensor) -> Result<()>> GradSink for F {
    fn take_gradient(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        self(id, gradient)
    }
}

impl GradSink for Grads {
    fn take_gradient(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        self.add(id, gradient)
    }
}

/// Gradients by the id of the tensor they belong to.
#[derive(Default)]
pub struct Grads {
    pub(super) by_id: BTreeMap<TensorId, Tensor>,
}

impl Grads {
    /// Returns the gradient of `t`; `None` when nothing used `t`.
    pub fn get(&self, t: &Tensor) -> Option<&Tensor> {
        self.by_id.get(&t.id()?)
    }

    /// Removes and returns the gradient of `t`.
    pub fn take(&mut self, t: &Tensor) -> Option<Tensor> {
        self.remove(t.id()?)
    }

    pub(super) fn insert(&mut self, id: TensorId, g: Tensor) {
        self.by_id.insert(id, g);
    }

    pub(super) fn remove(&mut self, id: TensorId) -> Option<Tensor> {
        self.by_id.remove(&id)
    }

    /// Adds `g` to the gradient of `id`.
    pub(crate) fn add(&mut self, id: TensorId, g: Tensor) -> Result<()> {
        let sum = match self.remove(id) {
            None => g,
            Some(mut sum) => {
                accumulate(&mut sum, &g)?;
                sum
            }
        };
        self.insert(id, sum);
        Ok(())
    }
}

impl FromIterator<(TensorId, Tensor)> for Grads {
    fn from_iter<I: IntoIterator<Item = (TensorId, Tensor)>>(gradients: I) -> Self {
        Grads { by_id: gradients.into_iter().collect() }
    }
}
