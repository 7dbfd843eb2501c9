//! `lora`: y = x Wᵀ + s (drop(x) Aᵀ) Bᵀ for a list of (W, A, B) that share x, as q k v and gate up do.
//!
//! LoRA (Hu et al., arXiv 2106.09685, eq. 3), s = alpha / R; dropout on the adapter's input as PEFT applies it,
//! with one mask for all the linears that share x.
//!
//! **math** forward: x̃ = drop(x), S = s x̃ Aᵀ, y = x Wᵀ + S Bᵀ. Backward: dS = s dy B, dB = dyᵀ S, dA = dSᵀ x̃,
//! dx = mask/(1-p) ⊙ Σ dS A + Σ dy W. W is frozen.
//!
//! **shapes** x (T, C); W (N, C), A (R, C), B (N, R), y (T, N) for each target; N and R may differ by target.
//!
//! **layout** row-major; S Bᵀ rides as one more slab of K in the accumulators of x Wᵀ, so y is written once.
//! In dx the slabs come first, are masked, and the main products continue from there.
//!
//! **numerics** f32 accumulation, k ascending; S and dS are stored in x's type; A and B are f32 masters, rounded
//! as they are read when x is bf16; dA and dB are f32.
//!
//! **traffic** that of the plain products, plus T·R + R·(C + N) a target.

mod cpu;
pub mod spec;

use crate::gemm::cpu::Start;
use crate::gemm::{self, nn, nt, precision, tn};
use codelsi_engine::rng::Key;
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Op, Outs, Result, Saved, Sink, Tensor};

/// One adapted linear: a frozen weight and its low-rank pair.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// (N, C), frozen.
    pub w: &'a Tensor,
    /// (R, C) f32.
    pub a: &'a Tensor,
    /// (N, R) f32.
    pub b: &'a Tensor,
    /// s = alpha / R.
    pub scale: f32,
}

/// Dropout of the adapters' input. A token's mask depends on its key and `key` alone.
#[derive(Clone)]
pub struct Dropout {
    /// Probability of zeroing a channel.
    pub p: f32,
    pub key: Key,
    /// (T) i32: what identifies each token, wherever it is packed.
    pub tokens: Tensor,
}

/// y for each of `targets`, in their order and in x's type.
///
/// # Errors
/// When shapes do not fit, or a W wants a gradient: that is full training, without adapters.
pub fn lora(cx: &Ctx, x: &Tensor, targets: &[Target], dropout: Option<Dropout>) -> Result<Outs> {
    let inputs: Vec<&Tensor> = [x].into_iter().chain(targets.iter().flat_map(|t| [t.w, t.a, t.b])).collect();
    let scales = targets.iter().map(|t| t.scale).collect();
    cx.apply(Lora { scales, dropout: dropout.filter(|d| d.p > 0.0) }, &inputs)
}

struct Lora {
    scales: Vec<f32>,
    dropout: Option<Dropout>,
}

impl Op for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    /// Saves x, then (W, A, B, S) of each target.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (x, targets) = (x[0], &x[1..]);
        let rows = x.shape().as_matrix().0;
        save.keep(x);
        let dropped = self.drop(cx, x)?;
        let mut outs = Vec::with_capacity(self.scales.len());
        for (target, &scale) in targets.chunks_exact(3).zip(&self.scales) {
            let [w, a, b] = *target else { unreachable!("chunks of three") };
            check(x, w, a, b)?;
            let mut s = cx.empty([rows, a.shape()[0]], x.dtype());
            let mut y = cx.empty([rows, w.shape()[0]], x.dtype());
            match cx.device() {
                Device::Cpu(_) => {
                    gemm::store(&mut s, Start::Zero, &[nt(&dropped, a)?], precision(x))?;
                    cpu::scale(&mut s, scale)?;
                    gemm::store(&mut y, Start::Zero, &[nt(x, w)?, nt(&s, b)?], precision(x))?;
                }
                Device::Cuda(cuda) => cuda.lacks("lora")?,
                Device::Plan(_) => {}
            }
            save.keep_all([w, a, b, &s]);
            outs.push(y);
        }
        Ok(outs)
    }

    fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
        let x = &saved[0];
        let dropped = self.drop(cx, x)?;
        let mut used = Vec::new();
        for (i, (target, dy)) in saved[1..].chunks_exact(4).zip(dy).enumerate() {
            let ([w, a, b, s], Some(dy)) = (target, dy) else { continue };
            let mut ds = cx.scratch(*s.shape(), x.dtype());
            let mut db = cx.device().empty(Label::Gradients, *b.shape(), DType::F32);
            let mut da = cx.device().empty(Label::Gradients, *a.shape(), DType::F32);
            match cx.device() {
                Device::Cpu(_) => {
                    gemm::store(&mut ds, Start::Zero, &[nn(dy, b)?], precision(x))?;
                    cpu::scale(&mut ds, self.scales[i])?;
                    gemm::store(&mut db, Start::Zero, &[tn(dy, s)?], precision(x))?;
                    gemm::store(&mut da, Start::Zero, &[tn(&ds, &dropped)?], precision(x))?;
                }
                Device::Cuda(cuda) => cuda.lacks("lora")?,
                Device::Plan(_) => {}
            }
            dx.add(3 * i + 2, da)?;
            dx.add(3 * i + 3, db)?;
            used.push((w, a, dy, ds));
        }
        if !dx.wants(0) {
            return Ok(());
        }
        let mut g = cx.empty(*x.shape(), x.dtype());
        let mut low_rank = cx.scratch(*x.shape(), DType::F32);
        match cx.device() {
            Device::Cpu(_) => {
                let slabs: Vec<_> = used.iter().map(|(_, a, _, ds)| nn(ds, a)).collect::<Result<_>>()?;
                let main: Vec<_> = used.iter().map(|(w, _, dy, _)| nn(dy, w)).collect::<Result<_>>()?;
                gemm::store(&mut low_rank, Start::Zero, &slabs, precision(x))?;
                if let Some(dropout) = &self.dropout {
                    cpu::mask(&mut low_rank, dropout)?;
                }
                gemm::store(&mut g, Start::From(low_rank.slice()?), &main, precision(x))?;
            }
            Device::Cuda(cuda) => cuda.lacks("lora")?,
            Device::Plan(_) => {}
        }
        dx.add(0, g)
    }
}

impl Lora {
    /// drop(x), or x itself.
    fn drop(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        let Some(dropout) = &self.dropout else { return Ok(x.detach()) };
        let mut dropped = cx.scratch(*x.shape(), x.dtype());
        match cx.device() {
            Device::Cpu(_) => cpu::drop(&mut dropped, x, dropout)?,
            Device::Cuda(cuda) => cuda.lacks("lora")?,
            Device::Plan(_) => {}
        }
        Ok(dropped)
    }
}

fn check(x: &Tensor, w: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let c = x.shape().as_matrix().1;
    let ((n, wc), (r, ac), (bn, br)) = (w.shape().as_matrix(), a.shape().as_matrix(), b.shape().as_matrix());
    if (wc, ac, bn, br) != (c, c, n, r) {
        let (x, w, a, b) = (x.shape(), w.shape(), a.shape(), b.shape());
        return Err(Error::new(format!("x is {x}, W is {w}, A is {a}, B is {b}: they do not fit together")));
    }
    if w.id().is_some() {
        return Err(Error::new("W wants a gradient: adapters train over frozen weights")).at("W");
    }
    Ok(())
}
