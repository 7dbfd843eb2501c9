//! `lora`: y = x Wᵀ + s (drop(x) Aᵀ) Bᵀ for a list of (W, A, B) that share x, as q k v and gate up do.
//!
//! LoRA (Hu et al., arXiv 2106.09685, eq. 3), s = alpha / R; dropout on the input of the adapter as in PEFT, with one
//! mask for all linears that share x.
//!
//! Several adapters can be served in one batch ([`multi_lora`]): each row selects its own.
//!
//! **math** forward: x̃ = drop(x), S = s x̃ Aᵀ, y = x Wᵀ + S Bᵀ. Backward: dS = s dy B, dB = dyᵀ S, dA = dSᵀ x̃,
//! dx = mask/(1-p) ⊙ Σ dS A + Σ dy W. W is frozen.
//!
//! **shapes** x (T, C); W (N, C), A (R, C), B (N, R), y (T, N) for each target; N and R may differ by target.
//!
//! **layout** row-major; S Bᵀ is accumulated as one more slab of K into the accumulators of x Wᵀ, so y is written once.
//! In dx the slabs come first and are masked in the accumulators, and the main products continue from there.
//!
//! **launch** on a GPU in bf16: S of all targets from one read of x, which makes the dropout mask and keeps it for
//! backward, with split-K over slices of 512 channels, and their sum; then the products of gemm of all targets in one
//! launch, each with its slab S Bᵀ in front (`lora.cu`). Up to 64 rows of inference are one launch ([`lora_decode`],
//! `decode.cu`), in which the products wait for S. Backward: dS and dB of all targets from one read of each dy, and dA of
//! all from one read of x, each in partial sums and a launch that adds them, where rows are cut; dx (`dx.cu`). In f32
//! the plain products of gemm, in the order of the CPU twin.
//!
//! **numerics** f32 accumulation, k ascending; S and dS are stored in the type of x; A and B are f32 master weights,
//! rounded as they are read when x is bf16; dA and dB are f32. Partial sums are cut at fixed places that depend on C, N
//! and T only, so the bits of a row do not depend on the other rows of the batch nor on their adapters.
//!
//! **traffic** that of the plain products, plus T·R + R·(C + N) per target.

mod bugs;
pub(crate) mod cpu;
mod cuda;
mod decode_bugs;
mod narrow_bugs;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::dropout::{Dropout, DropoutRate};
use codelsi_engine::{At, Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An adapted linear: a frozen weight with one LoRA adapter, or with a stack of G adapters of which each row uses one.
#[derive(Clone, Copy)]
pub struct LoraLinear<'a> {
    /// (N, C): frozen weight.
    pub w: &'a Tensor,
    /// (R, C) f32; (G, R, C) for [`multi_lora`].
    pub a: &'a Tensor,
    /// (N, R) f32; (G, N, R) for [`multi_lora`].
    pub b: &'a Tensor,
    /// s = alpha / R.
    pub scale: f32,
}

impl LoraLinear<'_> {
    fn rank(&self) -> usize {
        self.b.shape().as_matrix().1
    }

    /// Returns the number of adapters in the stack.
    fn adapters(&self) -> usize {
        self.a.shape().as_matrix().0 / self.rank().max(1)
    }
}

/// Returns y (T, N) of each of `targets`, in their order and in the storage type of x.
///
/// # Errors
/// When shapes do not fit, or a W wants a gradient: full fine-tuning uses `gemm`.
pub fn lora(cx: &Ctx, x: &Tensor, targets: &[LoraLinear], dropout: Option<Dropout>) -> Result<Outs> {
    let dropout = dropout.filter(|d| d.rate != DropoutRate::ZERO);
    apply(cx, x, targets, Lora { dropout, ..Lora::default() })
}

/// Returns y (T, N) of each of `targets`, whose A and B are stacks of G adapters: row t uses adapter `adapter_ids`_t, none
/// where that is negative. Inference only.
///
/// # Errors
/// When shapes do not fit, an adapter is not in the stack, or an input wants a gradient.
pub fn multi_lora(cx: &Ctx, x: &Tensor, targets: &[LoraLinear], adapter_ids: &Tensor) -> Result<Outs> {
    apply(cx, x, targets, Lora { adapter_ids: Some(adapter_ids.clone()), ..Lora::default() })
}

/// Returns what [`lora`] does without dropout, or [`multi_lora`] with `adapter_ids`, with the same bits: on a GPU in one
/// launch where there are few rows. Inference only.
///
/// # Errors
/// As [`lora`] and [`multi_lora`].
pub fn lora_decode(
    cx: &Ctx,
    x: &Tensor,
    targets: &[LoraLinear],
    adapter_ids: Option<&Tensor>,
    turns: &Turns,
) -> Result<Outs> {
    let turns = Some(turns.clone());
    apply(cx, x, targets, Lora { adapter_ids: adapter_ids.cloned(), turns, ..Lora::default() })
}

/// Counters by which blocks of [`lora_decode`] wait for each other, (2) i32: every call leaves them 0, which a recorded
/// step needs.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<Tensor>>);

impl Turns {
    /// Allocates the counters.
    pub fn new(device: &Device) -> Self {
        Turns(Arc::new(Mutex::new(device.zeros(Label::Kv, [2], DType::I32))))
    }

    fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(cx: &Ctx, x: &Tensor, targets: &[LoraLinear], op: Lora) -> Result<Outs> {
    let inputs: Vec<&Tensor> = [x].into_iter().chain(targets.iter().flat_map(|t| [t.w, t.a, t.b])).collect();
    cx.apply(Lora { scales: targets.iter().map(|t| t.scale).collect(), ..op }, &inputs)
}

#[derive(Default)]
struct Lora {
    scales: Vec<f32>,
    dropout: Option<Dropout>,
    adapter_ids: Option<Tensor>,
    /// Given in inference.
    turns: Option<Turns>,
}

/// A target whose output has a gradient, in backward.
struct BackwardLinear<'a> {
    target: LoraLinear<'a>,
    /// Index of the target in the list of the op.
    index: usize,
    /// S of the target; in bf16 on CUDA, S of all targets.
    s: &'a Tensor,
    /// First column of the target in `s`.
    s_at: usize,
    dy: &'a Tensor,
}

impl Op for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    /// Saves x, then (W, A, B, S) of each target, then on CUDA the dropout mask for backward.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (x, inputs) = (x[0], &x[1..]);
        let targets: Vec<LoraLinear> = inputs
            .chunks_exact(3)
            .zip(&self.scales)
            .map(|(t, &scale)| LoraLinear { w: t[0], a: t[1], b: t[2], scale })
            .collect();
        targets.iter().try_for_each(|t| check(x, t, self.adapter_ids.as_ref()))?;
        self.check_batch(x, &targets)?;
        let cuda::Forward { outs, s, mask } = match cx.device() {
            Device::Cuda(cuda) => cuda::forward(self, cx, cuda, x, &targets)?,
            _ => self.forward_cpu(cx, x, &targets)?,
        };
        save.keep(x);
        for (t, s) in targets.iter().zip(&s) {
            save.keep_all([t.w, t.a, t.b, s]);
        }
        save.keep_all(&mask);
        Ok(outs)
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let x = &saved[0];
        let mut used = Vec::new();
        let mut s_at = 0;
        for (index, (t, dy)) in saved[1..].chunks_exact(4).zip(dy).enumerate() {
            let target = LoraLinear { w: &t[0], a: &t[1], b: &t[2], scale: self.scales[index] };
            used.extend(dy.as_ref().map(|dy| BackwardLinear { target, index, s: &t[3], s_at, dy }));
            s_at += cuda::padded_rank(target.rank());
        }
        if used.is_empty() {
            return Ok(());
        }
        let (gradients, g) = match cx.device() {
            Device::Cuda(cuda) => {
                let mask = saved.get(1 + 4 * dy.len());
                cuda::backward(self, cx, cuda, (x, mask), &used, dx.wants(0))?
            }
            _ => self.backward_cpu(cx, x, &used, dx.wants(0))?,
        };
        for (u, [da, db]) in used.iter().zip(gradients) {
            dx.add(3 * u.index + 2, da)?;
            dx.add(3 * u.index + 3, db)?;
        }
        g.map_or(Ok(()), |g| dx.add(0, g))
    }

    /// Returns false where rows select adapters or are decoded: that is for inference.
    fn differentiable(&self) -> bool {
        self.adapter_ids.is_none() && self.turns.is_none()
    }
}

impl Lora {
    /// Checks that per-row inputs have the rows of x, and that all stacks hold the same number of adapters.
    fn check_batch(&self, x: &Tensor, targets: &[LoraLinear]) -> Result<()> {
        let rows = x.shape().as_matrix().0;
        for per_row in self.dropout.iter().map(|d| &d.tokens).chain(&self.adapter_ids) {
            if per_row.shape()[..] != [rows] || per_row.dtype() != DType::I32 {
                return Err(Error::new(format!("{per_row:?} must be one i32 per row of x {}", x.shape())));
            }
        }
        match targets.iter().all(|t| t.adapters() == targets[0].adapters()) {
            true => Ok(()),
            false => Err(Error::new("the targets' stacks hold different numbers of adapters")),
        }
    }
}

/// Allocates dA and dB.
fn adapter_gradients(cx: &Ctx, target: &LoraLinear) -> [Tensor; 2] {
    [target.a, target.b].map(|t| cx.device().empty(Label::Gradients, *t.shape(), DType::F32))
}

fn check(x: &Tensor, t: &LoraLinear, choice: Option<&Tensor>) -> Result<()> {
    let (w, a, b) = (t.w.shape(), t.a.shape(), t.b.shape());
    let c = x.shape().as_matrix().1;
    let fits = match (&a[..], &b[..], choice) {
        ([r, ac], [n, br], None) => (w[..] == [*n, c], r, *ac) == (true, br, c),
        ([g, r, ac], [bg, n, br], Some(_)) => (w[..] == [*n, c], g, r, *ac) == (true, bg, br, c),
        _ => false,
    };
    if !fits {
        let x = x.shape();
        return Err(Error::new(format!("x is {x}, W is {w}, A is {a}, B is {b}: they do not fit together")));
    }
    if t.w.id().is_some() {
        return Err(Error::new("W wants a gradient: adapters train over frozen weights")).at("W");
    }
    Ok(())
}
