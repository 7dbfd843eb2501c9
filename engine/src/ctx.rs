//! The execution context of an op: the device, the tape when gradients are recorded, the ranks, and the random key.

use crate::comm::{Comm, Solo};
use crate::op_times::{self, Pass};
use crate::rng::RngKey;
use crate::tape::{GradSink, Grads, Node, Op, Outs, Saved, Tape, checkpoint};
use crate::tensor::TensorId;
use crate::{At, DType, Device, Error, Label, Result, Shape, Tensor};
use std::cell::RefCell;
use std::sync::Arc;

/// One rank's execution context. Without a tape it is inference, and nothing is saved.
///
/// The [crate's example](crate) runs an op in a training context and differentiates it.
pub struct Ctx {
    device: Device,
    tape: Option<RefCell<Tape>>,
    comm: Arc<dyn Comm>,
    seed: u64,
    step: u32,
}

impl Ctx {
    /// Returns a context for inference on `device`, as the only rank.
    pub fn inference(device: &Device) -> Self {
        Ctx { device: device.clone(), tape: None, comm: Arc::new(Solo), seed: 0, step: 0 }
    }

    /// Returns a context that records a tape; `seed` and `step` key its random numbers.
    pub fn training(device: &Device, seed: u64, step: u32) -> Self {
        Ctx { tape: Some(RefCell::default()), seed, step, ..Ctx::inference(device) }
    }

    /// Returns the same context as one rank of several.
    pub fn with_comm(self, comm: Arc<dyn Comm>) -> Self {
        Ctx { comm, ..self }
    }

    /// The device on which this context allocates and computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// This rank's communicator.
    pub fn comm(&self) -> &dyn Comm {
        &*self.comm
    }

    /// True when ops are recorded for backward.
    pub fn is_recording(&self) -> bool {
        self.tape.is_some()
    }

    /// True when an op on `x` is recorded: an input wants a gradient.
    pub fn records(&self, x: &[&Tensor]) -> bool {
        self.is_recording() && x.iter().any(|t| t.id().is_some())
    }

    /// Returns the key of the random numbers used at `site` in this step.
    pub fn key(&self, site: u32) -> RngKey {
        RngKey { seed: self.seed, step: self.step, site }
    }

    /// Allocates an output of an op, with arbitrary content.
    pub fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.device.empty(Label::Activations, shape, dtype)
    }

    /// Allocates working memory of an op, with arbitrary content.
    pub fn scratch(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.device.empty(Label::Scratch, shape, dtype)
    }

    /// Runs `op` on `x`, and pushes a node onto the tape when an input wants a gradient.
    ///
    /// # Errors
    /// When the op fails (the error has its name), or a gradient is wanted and the op has no backward.
    pub fn apply(&self, op: impl Op, x: &[&Tensor]) -> Result<Outs> {
        let record = self.records(x);
        if record && !op.differentiable() {
            return Err(Error::op(op.name(), "has no backward, and an input wants a gradient"));
        }
        let mut saved = if record { Saved::recording() } else { Saved::discarding() };
        let mut outs =
            self.timed(op.name(), Pass::Forward, || op.forward(self, x, &mut saved)).at(op.name())?;
        if let (Some(tape), true) = (&self.tape, record) {
            outs = outs.into_iter().map(|y| y.with_id(Some(TensorId::fresh()))).collect();
            tape.borrow_mut().push(Node::new(op, saved, x, &outs));
        }
        Ok(outs)
    }

    /// Runs a pass of op `name`, and counts its time where times are recorded ([`op_times`]), to its end on a GPU too.
    ///
    /// # Errors
    /// That of `run`, or when the device fails.
    pub fn timed<R>(&self, name: &'static str, pass: Pass, run: impl FnOnce() -> Result<R>) -> Result<R> {
        op_times::timed(name, pass, || {
            let result = run();
            match &self.device {
                Device::Cuda(cuda) if op_times::is_recording() => cuda.synchronize().and(result),
                _ => result,
            }
        })
    }

    /// Runs an op with one output, like [`Ctx::apply`].
    ///
    /// # Errors
    /// As [`Ctx::apply`].
    pub fn apply_one(&self, op: impl Op, x: &[&Tensor]) -> Result<Tensor> {
        Ok(self.apply(op, x)?.swap_remove(0))
    }

    /// Runs `f` as a checkpointed segment: only `x` is saved, and backward runs `f` again (activation checkpointing).
    ///
    /// # Errors
    /// When `f` fails.
    pub fn checkpoint<F>(&self, f: F, x: &[&Tensor]) -> Result<Tensor>
    where
        F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static,
    {
        match &self.tape {
            Some(tape) => {
                let y = f(&self.segment(false), x)?.with_id(Some(TensorId::fresh()));
                tape.borrow_mut().push(checkpoint(f, x, &y));
                Ok(y)
            }
            None => f(self, x),
        }
    }

    /// Returns a context like this one without its tape, for a segment's forward, or with a new tape (`recording`), for
    /// its replay in backward.
    pub(crate) fn segment(&self, recording: bool) -> Ctx {
        Ctx {
            device: self.device.clone(),
            tape: recording.then(RefCell::default),
            comm: self.comm.clone(),
            seed: self.seed,
            step: self.step,
        }
    }

    /// Differentiates: `ends` are outputs with the gradients to start from, and `sink` gets the gradient of each leaf
    /// that wants one, as soon as it is final. The tape is empty afterwards.
    ///
    /// [`Grads`] is a sink that collects; so is a closure `FnMut(TensorId, Tensor) -> Result<()>`.
    ///
    /// # Errors
    /// When an end was not recorded, an op's backward fails, or the sink does.
    pub fn backward<'a>(
        &self,
        ends: impl IntoIterator<Item = (&'a Tensor, Tensor)>,
        sink: &mut dyn GradSink,
    ) -> Result<()> {
        let mut grads = Grads::default();
        for (y, dy) in ends {
            let id = y.id().ok_or_else(|| Error::new("backward from a tensor that no tape recorded"))?;
            grads.add(id, dy)?;
        }
        self.take_tape().backward(self, &mut grads, Some(sink))
    }

    /// Removes and returns the nodes recorded so far.
    pub(crate) fn take_tape(&self) -> Tape {
        self.tape.as_ref().map(RefCell::take).unwrap_or_default()
    }
}
