//! Fused linear distillation: how far a language model's next-token distributions are from those of a frozen teacher with
//! the same head, chunked over tokens and vocabulary so that the full logits of neither exist.
//!
//! **math** z = h·headᵀ, the teacher's z' = g·headᵀ; q = softmax(z), p = softmax(z'). The divergence of a token t with a
//! label is KL(p_t ‖ q_t) = Σ_v p_tv·(z'_tv − z_tv) + ln Σ_v e^{z_tv} − ln Σ_v e^{z'_tv}; loss = scale · Σ_t of it, and
//! dh_t = scale · Σ_v (q_tv − p_tv)·head_v. This is the distillation of Hinton et al. (arXiv 1503.02531) at temperature 1
//! with the teacher's entropy taken off, so that the loss is 0 where student and teacher agree: learning without
//! forgetting (arXiv 1606.09282).
//!
//! **shapes** h, dh, g (T, C); head (V, C); targets (T), −100 where a token does not count: another value has no effect,
//! but is a row of head; loss (1); divergences (T), 0 where a token does not count. g and head have no gradient.
//!
//! **layout** row-major. Labelled tokens are gathered in chunks and meet the vocabulary in chunks, as in `xent`: two tiles
//! of logits exist at a time.
//!
//! **launch** as `xent`: tiles of logits, and one block per token between the products.
//!
//! **numerics** logits in f32. Maxima, sums of exponentials and Σ e^(z' − max')·(z' − z) are computed online over the
//! vocabulary chunks (arXiv 1805.02867). dh takes a second pass, with all logits recomputed: q − p is formed in f32 and
//! rounded once to storage. Sums of the rounded q and p apart would lose the difference, which is small wherever the
//! student is near its teacher. Equal h and g give a loss and dh of exactly 0. The order depends on V and on a token's own
//! row; the loss adds tokens in f64.
//!
//! **traffic** forward 4·T·V·C flops, T counting labelled tokens; dh, computed in the same call, another 6·T·V·C.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::xent::{Targets, times_scalar};
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
use cpu::{HostWorkspace, Outputs};
use half::bf16;

/// Returns `(loss, divergences)` of the student's hidden states h (T, C) from the teacher's g (T, C) under one frozen head
/// (V, C): loss (1) f32 is `scale` · Σ divergences; divergences (T) f32 have no gradient. Tokens whose target is
/// [`crate::xent::IGNORE_INDEX`] do not count.
///
/// # Errors
/// When the shapes do not fit, g or head wants a gradient, or a target is neither a row of head nor
/// [`crate::xent::IGNORE_INDEX`].
pub fn distill(
    cx: &Ctx,
    h: &Tensor,
    g: &Tensor,
    head: &Tensor,
    targets: &Targets,
    scale: f32,
) -> Result<(Tensor, Tensor)> {
    let op = Distill { scale, labelled: targets.labelled() };
    let mut outs = cx.apply(op, &[h, g, head, targets.ids()])?;
    let divergences = outs.swap_remove(1).detach();
    Ok((outs.swap_remove(0), divergences))
}

struct Distill {
    scale: f32,
    /// Tokens with a label.
    labelled: usize,
}

impl Op for Distill {
    fn name(&self) -> &'static str {
        "distill"
    }

    /// Computes the gradient as well.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [h, g, head, targets] = x else { unreachable!("distill has four inputs") };
        let ((t, c), (v, inner)) = (h.shape().as_matrix(), head.shape().as_matrix());
        let pairs_up = g.shape() == h.shape() && g.dtype() == h.dtype() && c == inner && v > 0;
        if !pairs_up || targets.shape()[..] != [t] || [h, head].iter().any(|x| x.dtype() == DType::I32) {
            let message = format!(
                "h {h:?} and g {g:?} (T, C), head {head:?} (V, C) and targets {targets:?} (T) do not fit"
            );
            return Err(Error::new(message));
        }
        let wants = |x: &Tensor| save.is_recording() && x.id().is_some();
        if let Some((what, _)) = [("teacher", g), ("head", head)].into_iter().find(|(_, x)| wants(x)) {
            return Err(Error::new(format!("the {what} wants a gradient and gets none here: freeze it")));
        }
        let mut out = Outputs {
            loss: cx.empty([1], DType::F32),
            divergences: cx.empty([t], DType::F32),
            dh: wants(h).then(|| cx.empty(*h.shape(), h.dtype())),
        };
        let inputs = [*h, *g, *head, *targets];
        let workspace = |out: &Outputs| HostWorkspace::new(cx, h, head, out);
        match (cx.device(), h.dtype()) {
            (Device::Cpu(_), DType::BF16) => {
                let mut work = workspace(&out);
                cpu::forward::<bf16>(&mut out, &mut work, inputs, self)?
            }
            (Device::Cpu(_), _) => {
                let mut work = workspace(&out);
                cpu::forward::<f32>(&mut out, &mut work, inputs, self)?
            }
            (Device::Cuda(cuda), _) => cuda::forward(cx, cuda, &mut out, inputs, self)?,
            (Device::Plan(_), _) => drop(workspace(&out)),
        }
        save.keep_all(&out.dh);
        Ok(vec![out.loss, out.divergences])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let (Some(dloss), Some(dh)) = (&dy[0], saved.iter().next()) else { return Ok(()) };
        dx.add(0, times_scalar(cx, dh, dloss)?)
    }
}
