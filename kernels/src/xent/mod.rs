//! Fused linear cross-entropy: the loss of a language model's head, chunked over tokens and vocabulary so that the full
//! logits never exist.
//!
//! **math** z = h·headᵀ; logprob_t = z_{t,y_t} − ln Σ_v e^{z_tv}; loss = −scale · Σ logprob_t over the tokens
//! with a label y_t. With p = softmax(z): dh_t = scale·(Σ_v p_tv·head_v − head_{y_t}) and
//! dhead_v = scale·Σ_t (p_tv − [v = y_t])·h_t.
//!
//! **shapes** h, dh (T, C); head, dhead (V, C); targets (T), −100 where there is no label; loss (1); logprobs
//! (T), 0 where there is no label.
//!
//! **ranks** may each hold a shard of the head's rows ([`vocab_parallel_xent`], Megatron's vocabulary-parallel
//! cross-entropy, arXiv 1909.08053). They all-reduce the maximum and the sum of every labelled token, so that loss
//! and logprobs are those of the full vocabulary, with the same bits on every rank; dh is the contribution of the
//! rank's shard, to be summed over ranks.
//!
//! **layout** row-major. Labelled tokens are gathered in chunks of 252, and each chunk meets the vocabulary in chunks
//! of 4096 rows: only one tile of logits exists at a time.
//!
//! **launch** on a GPU tiles of logits are 128 tokens for every fourth multiprocessor (1024 at least) by 4096 rows of the
//! head, so that the products make whole waves; between them, one block per token. A target outside the vocabulary traps, and so does a number of labels that differs from the one given.
//!
//! **numerics** logits in f32. The log-sum-exp and Σ p·head are computed online over the vocabulary chunks (Milakov
//! & Gimelshein, arXiv 1805.02867): when the running maximum grows, the earlier sums are rescaled, on a
//! GPU in the epilogue of the product that adds to them. The order depends on V and on a token's own row; dhead adds
//! tokens in ascending order in f32, the loss adds them in f64.
//!
//! **traffic** forward 2·T·V·C flops, T counting labelled tokens; dh, computed in the same pass, as many again;
//! dhead another 4·T·V·C, because it recomputes the logits. Backward multiplies by the gradient of the loss, and does
//! nothing when that is 1.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::elementwise::convert;
use crate::rows::RowShard;
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
pub(crate) use cpu::head;
use cpu::{HostWorkspace, Outputs};
pub(crate) use cuda::labelled;
use half::bf16;

/// Target of a token without a label: PyTorch's `ignore_index`.
pub const IGNORE_INDEX: i32 = -100;

/// Target ids of T tokens, and how many of them have a label. The amount of work depends on that number; it is counted
/// on the host, where targets are made, so that the host never waits for the device.
#[derive(Clone)]
pub struct Targets {
    ids: Tensor,
    labelled: usize,
}

impl Targets {
    /// Copies `targets`, [`IGNORE_INDEX`] where there is no label, to `device`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(device: &Device, targets: &[i32]) -> Result<Self> {
        let labelled = targets.iter().filter(|&&target| target != IGNORE_INDEX).count();
        Ok(Targets { ids: device.tensor(Label::Activations, [targets.len()], targets)?, labelled })
    }

    /// Targets from `ids` (T) i32 on the device, of which `labelled` have a label; [`xent`] fails when the count is
    /// wrong.
    pub fn counted(ids: Tensor, labelled: usize) -> Self {
        Targets { ids, labelled }
    }

    /// Returns the target ids (T) i32.
    pub fn ids(&self) -> &Tensor {
        &self.ids
    }

    /// Returns the number of tokens with a label.
    pub fn labelled(&self) -> usize {
        self.labelled
    }
}

/// Returns `(loss, logprobs)` of targets (T) under the logits h (T, C) · head (V, C)ᵀ: loss (1) f32 is
/// −`scale` · Σ logprobs; logprobs (T) f32 have no gradient. Targets of [`IGNORE_INDEX`] do not count.
///
/// # Errors
/// When the shapes do not fit, or a target is neither a row of head nor [`IGNORE_INDEX`].
pub fn xent(cx: &Ctx, h: &Tensor, head: &Tensor, targets: &Targets, scale: f32) -> Result<(Tensor, Tensor)> {
    vocab_parallel_xent(cx, h, head, targets, scale, RowShard { first: 0, total: head.shape().as_matrix().0 })
}

/// Computes [`xent`] on a rank that holds the shard `vocabulary` of the head's rows. A collective: all ranks call it
/// with the same h and targets.
///
/// # Errors
/// As [`xent`], or when a rank is gone.
pub fn vocab_parallel_xent(
    cx: &Ctx,
    h: &Tensor,
    head: &Tensor,
    targets: &Targets,
    scale: f32,
    vocabulary: RowShard,
) -> Result<(Tensor, Tensor)> {
    let op = Xent { scale, labelled: targets.labelled, vocabulary };
    let mut outs = cx.apply(op, &[h, head, &targets.ids])?;
    let logprobs = outs.swap_remove(1).detach();
    Ok((outs.swap_remove(0), logprobs))
}

struct Xent {
    scale: f32,
    /// Tokens with a label.
    labelled: usize,
    vocabulary: RowShard,
}

impl Op for Xent {
    fn name(&self) -> &'static str {
        "xent"
    }

    /// Computes the gradients as well, while each tile of logits exists.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [h, head, targets] = x else { unreachable!("xent has three inputs") };
        let ((t, c), (v, inner)) = (h.shape().as_matrix(), head.shape().as_matrix());
        if c != inner || targets.shape()[..] != [t] || [h, head].iter().any(|x| x.dtype() == DType::I32) {
            let message =
                format!("h {h:?} (T, C), head {head:?} (V, C) and targets {targets:?} (T) do not fit");
            return Err(Error::new(message));
        }
        let wants = |x: &Tensor| save.is_recording() && x.id().is_some();
        let mut out = Outputs {
            loss: cx.empty([1], DType::F32),
            logprobs: cx.empty([t], DType::F32),
            dh: wants(h).then(|| cx.empty(*h.shape(), h.dtype())),
            dhead: wants(head).then(|| cx.device().empty(Label::Gradients, [v, c], DType::F32)),
        };
        let inputs = [*h, *head, *targets];
        let workspace = |out: &Outputs| HostWorkspace::new(cx, h, head, self.vocabulary, out);
        match (cx.device(), h.dtype()) {
            (Device::Cpu(_), DType::BF16) => {
                let mut work = workspace(&out);
                cpu::forward::<bf16>(&mut out, &mut work, cx.comm(), inputs, self)?
            }
            (Device::Cpu(_), _) => {
                let mut work = workspace(&out);
                cpu::forward::<f32>(&mut out, &mut work, cx.comm(), inputs, self)?
            }
            (Device::Cuda(cuda), _) => cuda::forward(cx, cuda, &mut out, inputs, self)?,
            (Device::Plan(_), _) => drop(workspace(&out)),
        }
        save.keep_all(&out.dh);
        if let Some(dhead) = out.dhead {
            save.keep(&to_storage(cx, dhead, head.dtype())?);
        }
        Ok(vec![out.loss, out.logprobs])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dloss) = &dy[0] else { return Ok(()) };
        let wanted = (0..2).filter(|&i| dx.wants(i)).collect::<Vec<_>>();
        for (i, gradient) in wanted.into_iter().zip(saved.iter()) {
            dx.add(i, times_scalar(cx, gradient, dloss)?)?;
        }
        Ok(())
    }
}

/// Returns a gradient that was summed in f32 in the storage type `dtype` of its parameter.
fn to_storage(cx: &Ctx, gradient: Tensor, dtype: DType) -> Result<Tensor> {
    if dtype == DType::F32 {
        return Ok(gradient);
    }
    let mut narrow = cx.device().empty(Label::Gradients, *gradient.shape(), dtype);
    convert(cx, &mut narrow, &gradient)?;
    Ok(narrow)
}

/// Returns `gradient` times the scalar `dloss`; `gradient` itself when that is 1, as in a training step.
pub(crate) fn times_scalar(cx: &Ctx, gradient: &Tensor, dloss: &Tensor) -> Result<Tensor> {
    let one = match cx.device() {
        Device::Cpu(_) => dloss.slice::<f32>()? == [1.0],
        Device::Cuda(_) => false, // reading it would synchronize host and device
        Device::Plan(_) => true,
    };
    if one {
        return Ok(gradient.clone());
    }
    let mut y = cx.empty(*gradient.shape(), gradient.dtype());
    match (cx.device(), gradient.dtype()) {
        (Device::Cuda(cuda), _) => cuda::scale(cuda, &mut y, gradient, dloss)?,
        (_, DType::BF16) => cpu::scale::<bf16>(&mut y, gradient, dloss)?,
        _ => cpu::scale::<f32>(&mut y, gradient, dloss)?,
    }
    Ok(y)
}
