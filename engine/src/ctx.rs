//! What an op runs in: a device, perhaps a tape, the ranks, and the key of this step's random numbers.

use crate::comm::{Comm, Solo};
use crate::rng::Key;
use crate::tape::{Grads, Node, Op, Outs, Saved, Tape, checkpoint};
use crate::tensor::Id;
use crate::{DType, Device, Error, Label, Result, Shape, Tensor};
use std::cell::RefCell;
use std::sync::Arc;

/// One rank's execution context. Without a tape it is inference: nothing is saved.
pub struct Ctx {
    device: Device,
    tape: Option<RefCell<Tape>>,
    comm: Arc<dyn Comm>,
    seed: u64,
    step: u32,
}

impl Ctx {
    /// A context for inference on `device`, alone.
    pub fn inference(device: &Device) -> Self {
        Ctx { device: device.clone(), tape: None, comm: Arc::new(Solo), seed: 0, step: 0 }
    }

    /// A context that records a tape; `seed` and `step` key its dropout.
    pub fn training(device: &Device, seed: u64, step: u32) -> Self {
        Ctx { tape: Some(RefCell::default()), seed, step, ..Ctx::inference(device) }
    }

    /// The same context as one rank of several.
    pub fn with_comm(self, comm: Arc<dyn Comm>) -> Self {
        Ctx { comm, ..self }
    }

    /// Where this context allocates and computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// This rank's link to the others.
    pub fn comm(&self) -> &dyn Comm {
        &*self.comm
    }

    /// True when gradients are recorded.
    pub fn records(&self) -> bool {
        self.tape.is_some()
    }

    /// The key of the random numbers used at `site` in this step.
    pub fn key(&self, site: u32) -> Key {
        Key { seed: self.seed, step: self.step, site }
    }

    /// An output of an op, with arbitrary content.
    pub fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.device.empty(Label::Activations, shape, dtype)
    }

    /// Working memory of an op, with arbitrary content.
    pub fn scratch(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.device.empty(Label::Scratch, shape, dtype)
    }

    /// Runs `op`; leaves a node on the tape when an input wants a gradient.
    ///
    /// # Errors
    /// The op's own, with its name; or a refusal when the op has no backward and a gradient is wanted.
    pub fn apply(&self, op: impl Op, x: &[&Tensor]) -> Result<Outs> {
        let wanted = self.records() && x.iter().any(|t| t.id().is_some());
        if wanted && !op.differentiable() {
            return Err(Error::op(op.name(), "has no backward, and an input wants a gradient"));
        }
        let mut saved = if wanted { Saved::recording() } else { Saved::discarding() };
        let mut outs = op.forward(self, x, &mut saved).map_err(|e| e.at(op.name()))?;
        if let (Some(tape), true) = (&self.tape, wanted) {
            outs = outs.into_iter().map(|y| y.named(Some(Id::fresh()))).collect();
            tape.borrow_mut().push(Node::new(op, saved, x, &outs));
        }
        Ok(outs)
    }

    /// [`Ctx::apply`] for an op with one output.
    pub fn apply_one(&self, op: impl Op, x: &[&Tensor]) -> Result<Tensor> {
        Ok(self.apply(op, x)?.swap_remove(0))
    }

    /// Runs `f` without saving anything inside it; backward runs it again on a tape of its own.
    pub fn checkpoint<F>(&self, f: F, x: &[&Tensor]) -> Result<Tensor>
    where
        F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static,
    {
        match &self.tape {
            Some(tape) => {
                let y = f(&self.segment(false), x)?.named(Some(Id::fresh()));
                tape.borrow_mut().push(checkpoint(f, x, &y));
                Ok(y)
            }
            None => f(self, x),
        }
    }

    /// A context like this one, off its tape: for a segment's forward, or (`recording`) for its replay.
    pub(crate) fn segment(&self, recording: bool) -> Ctx {
        Ctx {
            device: self.device.clone(),
            tape: recording.then(RefCell::default),
            comm: self.comm.clone(),
            seed: self.seed,
            step: self.step,
        }
    }

    /// Adds d`y`/d(every leaf that wants a gradient), seeded with `dy`, to `grads`. The tape is used up.
    ///
    /// # Errors
    /// When `y` was not recorded, or an op's backward fails.
    pub fn backward(&self, y: &Tensor, dy: Tensor, grads: &mut Grads) -> Result<()> {
        self.backward_from([(y, dy)], grads)
    }

    /// [`Ctx::backward`] from several tensors at once.
    pub fn backward_from<'a>(
        &self,
        ends: impl IntoIterator<Item = (&'a Tensor, Tensor)>,
        grads: &mut Grads,
    ) -> Result<()> {
        for (y, dy) in ends {
            let id = y.id().ok_or_else(|| Error::new("backward from a tensor that no tape recorded"))?;
            grads.insert(id, dy);
        }
        let tape = self.tape.as_ref().map(RefCell::take).unwrap_or_default();
        tape.backward(self, grads, &mut |_, _| Ok(()))
    }

    /// [`Ctx::backward`] that hands each leaf's gradient to `done` as soon as it is final, so that work on it can begin
    /// while backward goes on. A leaf that two checkpointed segments capture without taking it as an input is handed out
    /// by each of them.
    ///
    /// # Errors
    /// As [`Ctx::backward`], or those of `done`.
    pub fn backward_each(
        &self,
        y: &Tensor,
        dy: Tensor,
        done: &mut dyn FnMut(Id, Tensor) -> Result<()>,
    ) -> Result<()> {
        let id = y.id().ok_or_else(|| Error::new("backward from a tensor that no tape recorded"))?;
        let mut grads = Grads::default();
        grads.insert(id, dy);
        let tape = self.tape.as_ref().map(RefCell::take).unwrap_or_default();
        tape.backward(self, &mut grads, &mut |grads, open| {
            grads.settled(open).into_iter().try_for_each(|(id, g)| done(id, g))
        })
    }
}
