//! DoRA on top of `lora`: a trained magnitude for every output channel.
//!
//! DoRA (Liu et al., arXiv 2402.09353, eq. 5): y = m/n ⊙ (x Wᵀ + s (x Aᵀ) Bᵀ) with n_j = ‖W_j + s B_j A‖. The factor in
//! parentheses is the output of `lora`.
//!
//! **math** `norms`: n. `magnify`: y = x ⊙ m/n; dx = dy ⊙ m/n, dm = Σ_t dy ⊙ x / n = Σ_t dy ⊙ y / m. Gradients treat n
//! as a constant (section 4.3), so dA and dB are those of `lora` for dx.
//!
//! **shapes** W (N, C), A (R, C), B (N, R), m and n (N), x and y (T, N).
//!
//! **layout** row-major.
//!
//! **launch** `norms`: one warp per four rows of W, which share the elements of A that it reads. `magnify`: one block
//! per row; dm sums slabs of 64 rows, then the slabs.
//!
//! **numerics** f32, whatever W and x are stored in; r and T ascending. n is computed from whole rows, not from ‖W_j‖²
//! and products of A and W, so that nothing cancels. y is saved rather than x, because the ops after v, gate and up
//! save it anyway; where m is 0, dm is NaN.
//!
//! **traffic** `norms`: W once, 2·N·R·C flops. `magnify`: 2·T·N elements; backward 3·T·N, and two reads for dm.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use crate::lora::LoraLinear;
use codelsi_engine::{At, Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns n (N) f32 of an adapted linear: the Euclidean norms of the rows of W + s B A. It has no gradient.
///
/// # Errors
/// When the shapes are inconsistent.
pub fn norms(cx: &Ctx, target: &LoraLinear) -> Result<Tensor> {
    computed_norms(cx, target).at("dora")
}

/// Returns `x` (T, N) with each channel scaled by `m` / `n`, both (N) f32.
///
/// # Errors
/// When the shapes differ, or n wants a gradient.
pub fn magnify(cx: &Ctx, x: &Tensor, m: &Tensor, n: &Tensor) -> Result<Tensor> {
    cx.apply_one(Magnify, &[x, m, n])
}

fn computed_norms(cx: &Ctx, target: &LoraLinear) -> Result<Tensor> {
    let (w, a, b) = (target.w, target.a, target.b);
    let ((n, c), (r, inner)) = (w.shape().as_matrix(), a.shape().as_matrix());
    if inner != c || b.shape()[..] != [n, r] || [a, b].map(Tensor::dtype) != [DType::F32; 2] {
        return Err(Error::new(format!("W {w:?}, A {a:?} and B {b:?} do not fit together")));
    }
    let mut row_norms = cx.empty([n], DType::F32);
    match (cx.device(), w.dtype()) {
        (Device::Cpu(_), DType::BF16) => cpu::norms::<bf16>(&mut row_norms, target)?,
        (Device::Cpu(_), _) => cpu::norms::<f32>(&mut row_norms, target)?,
        (Device::Cuda(cuda), _) => cuda::norms(cuda, &mut row_norms, target)?,
        (Device::Plan(_), _) => {}
    }
    Ok(row_norms)
}

struct Magnify;

impl Magnify {
    /// Computes y = x ⊙ m/n.
    fn scaled(cx: &Ctx, x: &Tensor, m: &Tensor, n: &Tensor) -> Result<Tensor> {
        let mut y = cx.empty(*x.shape(), x.dtype());
        match (cx.device(), x.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::magnify::<bf16>(&mut y, x, m, n)?,
            (Device::Cpu(_), _) => cpu::magnify::<f32>(&mut y, x, m, n)?,
            (Device::Cuda(cuda), _) => cuda::magnify(cuda, &mut y, x, m, n)?,
            (Device::Plan(_), _) => {}
        }
        Ok(y)
    }

    /// Computes dm = Σ_t dy ⊙ y / m.
    fn magnitudes(cx: &Ctx, dy: &Tensor, y: &Tensor, m: &Tensor) -> Result<Tensor> {
        let mut dm = cx.device().empty(Label::Gradients, *m.shape(), DType::F32);
        match (cx.device(), y.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::magnitudes::<bf16>(&mut dm, dy, y, m)?,
            (Device::Cpu(_), _) => cpu::magnitudes::<f32>(&mut dm, dy, y, m)?,
            (Device::Cuda(cuda), _) => cuda::magnitudes(cx, cuda, &mut dm, dy, y, m)?,
            (Device::Plan(_), _) => {}
        }
        Ok(dm)
    }
}

impl Op for Magnify {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn forward(&self, cx: &Ctx, inputs: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [x, m, n] = inputs else { unreachable!("magnify takes x, m and n") };
        let channels = x.shape().as_matrix().1;
        let fits = |t: &Tensor| t.shape()[..] == [channels] && t.dtype() == DType::F32;
        if !(fits(m) && fits(n)) || x.dtype() == DType::I32 || n.id().is_some() {
            return Err(Error::new(format!(
                "x {x:?}, m {m:?} and n {n:?}: m and a constant n are (N) in F32"
            )));
        }
        let y = Magnify::scaled(cx, x, m, n)?;
        save.keep_all([&y, *m, *n]);
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let (y, m, n) = (&saved[0], &saved[1], &saved[2]);
        if dx.wants(0) {
            dx.add(0, Magnify::scaled(cx, dy, m, n)?)?;
        }
        if dx.wants(1) {
            dx.add(1, Magnify::magnitudes(cx, dy, y, m)?)?;
        }
        Ok(())
    }
}
