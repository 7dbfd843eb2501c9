//! Where the ranks of the tensor layout meet: on the way into their parts and out of them.

use codelsi_engine::{Ctx, Label, Op, Outs, Reduce, Result, Saved, Sink, Tensor};

/// `x`, which all ranks have, on its way into their parts: what each finds of its gradient is summed.
///
/// # Errors
/// In backward, when a rank is gone.
pub(crate) fn enter(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    match cx.comm().world() {
        1 => Ok(x.clone()),
        _ => cx.apply_one(Enter, &[x]),
    }
}

/// The sum of what the ranks' parts make of one thing; its gradient is everybody's.
///
/// # Errors
/// When a rank is gone.
pub(crate) fn leave(cx: &Ctx, x: Tensor) -> Result<Tensor> {
    match cx.comm().world() {
        1 => Ok(x),
        _ => cx.apply_one(Leave, &[&x]),
    }
}

struct Enter;

impl Op for Enter {
    fn name(&self) -> &'static str {
        "enter"
    }

    fn forward(&self, _: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![x[0].detach()])
    }

    fn backward(&self, cx: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx.add(0, sum(cx, dy, Label::Gradients)?)
    }
}

struct Leave;

impl Op for Leave {
    fn name(&self) -> &'static str {
        "leave"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![sum(cx, x[0], Label::Activations)?])
    }

    fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
        dy[0].clone().map_or(Ok(()), |dy| dx.add(0, dy))
    }
}

fn sum(cx: &Ctx, x: &Tensor, label: Label) -> Result<Tensor> {
    let mut sum = x.to(cx.device(), label)?;
    cx.comm().all_reduce(&mut sum, Reduce::Sum)?;
    Ok(sum)
}
