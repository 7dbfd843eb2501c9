//! Reverse-mode differentiation on a tape.
//!
//! Nodes are pushed as ops run, so their reverse order is a topological order: backward visits them once, last to
//! first, and drops each node with all that it saved right after it.

mod accumulate;
mod checkpoint;
mod deferred;
mod grads;
mod pending;

pub use accumulate::accumulate;
pub(crate) use checkpoint::checkpoint;
pub use grads::{GradSink, Grads};

use crate::op_times::Pass;
use crate::tensor::{Tensor, TensorId};
use crate::{At, Ctx, Label, Result};
use deferred::Deferred;
use pending::PendingUses;

/// The outputs of an op.
pub type Outs = Vec<Tensor>;

/// A differentiable operation with a hand-written backward.
pub trait Op: 'static {
    /// The op's folder name, for error messages.
    fn name(&self) -> &'static str;

    /// Computes the outputs from `x` and keeps in `save` the tensors that backward will read.
    ///
    /// # Errors
    /// When shapes or types do not fit the op, or the device fails.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs>;

    /// Adds the gradients of the inputs to `dx`. `dy` is `None` for an output that nothing used.
    ///
    /// It has no default, so no gradient is ever lost in silence.
    ///
    /// # Errors
    /// When gradients do not fit the saved tensors, or the device fails.
    fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>)
    -> Result<()>;

    /// False for inference-only ops: forward refuses them when an input wants a gradient.
    fn differentiable(&self) -> bool {
        true
    }
}

/// Tensors kept from forward for backward; in inference it keeps nothing.
pub struct Saved {
    tensors: Vec<Tensor>,
    deferred: Deferred,
    recording: bool,
}

impl Saved {
    pub(crate) fn recording() -> Self {
        Saved { tensors: Vec::new(), deferred: Deferred::default(), recording: true }
    }

    pub(crate) fn discarding() -> Self {
        Saved { recording: false, ..Saved::recording() }
    }

    /// True when a backward may follow.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Keeps `t` as the next saved tensor. If it can be fetched again, only its source is kept.
    pub fn keep(&mut self, t: &Tensor) {
        match t.refetch() {
            _ if !self.recording => {}
            Some(source) => self.deferred.push(self.tensors.len() + self.deferred.len(), source.clone()),
            None => {
                t.relabel(Label::Activations, Label::Saved);
                self.tensors.push(t.detach());
            }
        }
    }

    /// Keeps all tensors of `ts`, in order.
    pub fn keep_all<'a>(&mut self, ts: impl IntoIterator<Item = &'a Tensor>) {
        ts.into_iter().for_each(|t| self.keep(t));
    }
}

impl std::ops::Deref for Saved {
    type Target = [Tensor];
    fn deref(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// The gradients of one op's inputs, which its backward adds to.
pub struct InputGrads<'a> {
    inputs: &'a [Option<TensorId>],
    grads: &'a mut Grads,
}

impl InputGrads<'_> {
    /// True when input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.inputs[i].is_some()
    }

    /// Adds `g` to the gradient of input `i`, or drops it when none is wanted.
    ///
    /// # Errors
    /// When `g` and the gradient so far differ in shape or type.
    pub fn add(&mut self, i: usize, g: Tensor) -> Result<()> {
        self.inputs[i].map_or(Ok(()), |id| self.grads.add(id, g))
    }

    /// Removes and returns the gradient of input `i` so far, for an op that adds to it in its own epilogue (beta = 1).
    /// Give the sum back with [`InputGrads::add`].
    pub fn slot(&mut self, i: usize) -> Option<Tensor> {
        self.grads.remove(self.inputs[i]?)
    }
}

/// One op on the tape: what it saved, and the ids of its inputs and outputs.
pub(crate) struct Node {
    op: Box<dyn Op>,
    saved: Saved,
    inputs: Vec<Option<TensorId>>,
    outputs: Vec<Option<TensorId>>,
}

impl Node {
    pub(crate) fn new(op: impl Op, saved: Saved, x: &[&Tensor], y: &[Tensor]) -> Self {
        Node {
            op: Box::new(op),
            saved,
            inputs: x.iter().map(|t| t.id()).collect(),
            outputs: y.iter().map(Tensor::id).collect(),
        }
    }

    fn ids(&self) -> impl Iterator<Item = TensorId> {
        self.inputs.iter().chain(&self.outputs).copied().flatten()
    }

    /// Turns the gradients of the outputs into those of the inputs.
    fn backward(&mut self, cx: &Ctx, dy: &[Option<Tensor>], grads: &mut Grads) -> Result<()> {
        self.saved.deferred.restore(&mut self.saved.tensors)?;
        self.op.backward(cx, &self.saved, dy, &mut InputGrads { inputs: &self.inputs, grads })
    }
}

#[derive(Default)]
pub(crate) struct Tape {
    nodes: Vec<Node>,
}

impl Tape {
    pub(crate) fn push(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// Visits the nodes last to first, starting from the gradients of the outputs in `grads`. Each leaf's gradient
    /// goes to `sink` once it is final; without a sink all of them stay in `grads`.
    ///
    /// # Errors
    /// When an op's backward or the sink fails.
    pub(crate) fn backward(
        mut self,
        cx: &Ctx,
        grads: &mut Grads,
        mut sink: Option<&mut dyn GradSink>,
    ) -> Result<()> {
        let mut pending = PendingUses::of(&self.nodes);
        loop {
            if let Some(sink) = &mut sink {
                let ready = pending.take_final(grads);
                ready.into_iter().try_for_each(|(id, g)| sink.take_gradient(id, g))?;
            }
            let Some(mut node) = self.nodes.pop() else { return Ok(()) };
            let dy: Vec<_> = node.outputs.iter().map(|id| grads.remove((*id)?)).collect();
            if dy.iter().any(Option::is_some) {
                let name = node.op.name();
                let run = || node.backward(cx, &dy, grads);
                cx.timed(name, Pass::Backward, run).at(name).at("backward")?;
            }
            pending.release(&node);
        }
    }
}

#[cfg(test)]
mod tests;
