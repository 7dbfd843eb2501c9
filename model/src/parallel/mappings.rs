//! The two communication ops of tensor parallelism, Megatron's f and g (Shoeybi et al., arXiv 1909.08053, section 3).

use codelsi_engine::{Ctx, InputGrads, Label, Op, Outs, ReduceOp, Result, Saved, Tensor};

/// Megatron's f: returns `x`, which all ranks have, as the input of the ranks' slices of a linear. Forward is the
/// identity, backward an all-reduce.
///
/// # Errors
/// In backward, when a rank is gone.
pub(crate) fn copy_to_tensor_parallel(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    match cx.comm().world() {
        1 => Ok(x.clone()),
        _ => cx.apply_one(CopyToTensorParallel, &[x]),
    }
}

/// Megatron's g: returns the sum of the ranks' partial results `x`. Forward is an all-reduce, backward the identity.
///
/// # Errors
/// When a rank is gone.
pub(crate) fn reduce_from_tensor_parallel(cx: &Ctx, x: Tensor) -> Result<Tensor> {
    match cx.comm().world() {
        1 => Ok(x),
        _ => cx.apply_one(ReduceFromTensorParallel, &[&x]),
    }
}

struct CopyToTensorParallel;

impl Op for CopyToTensorParallel {
    fn name(&self) -> &'static str {
        "copy_to_tensor_parallel"
    }

    fn forward(&self, _: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![x[0].detach()])
    }

    fn backward(&self, cx: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx.add(0, all_reduce(cx, dy, Label::Gradients)?)
    }
}

struct ReduceFromTensorParallel;

impl Op for ReduceFromTensorParallel {
    fn name(&self) -> &'static str {
        "reduce_from_tensor_parallel"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        Ok(vec![all_reduce(cx, x[0], Label::Activations)?])
    }

    fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        dy[0].clone().map_or(Ok(()), |dy| dx.add(0, dy))
    }
}

/// Returns the ranks' sum of `x`, as a new tensor under `label`.
fn all_reduce(cx: &Ctx, x: &Tensor, label: Label) -> Result<Tensor> {
    let mut sum = x.to(cx.device(), label)?;
    cx.comm().all_reduce(&mut sum, ReduceOp::Sum)?;
    Ok(sum)
}
