//! Activation checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174): a
//! segment saves its inputs alone, and backward runs it again.

use super::{InputGrads, Node, Op, Outs, Saved};
use crate::{Ctx, Result, Tensor};

/// The node of a checkpointed segment `y = f(x)`; it saves only the inputs.
pub(crate) fn checkpoint<F>(f: F, x: &[&Tensor], y: &Tensor) -> Node
where
    F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static,
{
    let mut saved = Saved::recording();
    saved.keep_all(x.iter().copied());
    Node::new(Segment(f), saved, x, std::slice::from_ref(y))
}

struct Segment<F>(F);

impl<F: Fn(&Ctx, &[&Tensor]) -> Result<Tensor> + 'static> Op for Segment<F> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![(self.0)(cx, x)?])
    }

    /// Runs the segment again on a new tape, whose backward adds to the same gradients.
    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dy) = dy[0].clone() else { return Ok(()) };
        let replay = cx.segment(true);
        let x: Vec<Tensor> = (0..saved.len())
            .map(|i| if dx.wants(i) { saved[i].clone().with_grad() } else { saved[i].clone() })
            .collect();
        let y = (self.0)(&replay, &x.iter().collect::<Vec<_>>())?;
        let Some(id) = y.id() else { return Ok(()) }; // nothing inside wants a gradient
        dx.grads.insert(id, dy);
        // No sink: outside of the segment, nodes may still add to a gradient that is final inside.
        replay.take_tape().backward(&replay, dx.grads, None)?;
        for (i, x) in x.iter().enumerate() {
            if let Some(g) = dx.grads.take(x) {
                dx.add(i, g)?;
            }
        }
        Ok(())
    }
}
