//! RMSNorm (Zhang & Sennrich, arXiv 1910.07467), alone and fused with the residual add before it.
//!
//! **math** r = 1/√(mean(x²) + ε) of each row; y = x·r·w. With g = dy·w:
//! dx = r·(g − x·r²·mean(g·x)) and dw = Σ_t dy·x·r.
//! `add_rmsnorm` first computes x = residual + delta, which is an output too; the gradient of that output is added
//! to dx, and residual and delta both receive the sum.
//!
//! **shapes** x, y, residual, delta (T, C); w (C); r (T).
//!
//! **layout** row-major; a row is one token.
//!
//! **launch** one block per row, which keeps it in registers, 16 bytes per access; dw sums slabs of 64 rows, then the
//! slabs, ascending.
//!
//! **numerics** f32, rounded where y and the sum are stored; y is computed from the rounded sum. w may have
//! another storage type than x. r is saved in f32 for backward. dw adds rows in ascending order, on a GPU
//! slab by slab.
//!
//! **traffic** forward reads x and writes y once: 2·T·C elements (4 when fused). Backward reads x and dy and
//! writes dx: 3·T·C, and 2·T·C more for dw when wanted.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use crate::elementwise::widened;
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns y = x / √(mean(x²) + `eps`) · w of each row: x, y (T, C), w (C).
///
/// # Errors
/// When the length of w is not that of a row of x.
pub fn rmsnorm(cx: &Ctx, x: &Tensor, w: &Tensor, eps: f32) -> Result<Tensor> {
    cx.apply_one(RmsNorm { eps }, &[x, w])
}

/// Returns `(sum, y)`: sum = residual + delta and y = rmsnorm(sum), all (T, C).
///
/// # Errors
/// When residual and delta differ in shape or storage type, or the length of w is not that of a row.
pub fn add_rmsnorm(
    cx: &Ctx,
    residual: &Tensor,
    delta: &Tensor,
    w: &Tensor,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    let mut outs = cx.apply(AddRmsNorm { eps }, &[residual, delta, w])?;
    let y = outs.swap_remove(1);
    Ok((outs.swap_remove(0), y))
}

struct RmsNorm {
    eps: f32,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rmsnorm"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (x, w) = (x[0], x[1]);
        let rows = checked_rows(x, w)?;
        let mut y = cx.empty(*x.shape(), x.dtype());
        let mut r = cx.empty([rows], DType::F32);
        let eps = self.eps;
        match (cx.device(), x.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::forward::<bf16>(&mut y, &mut r, x, &widened(cx, w)?, eps)?,
            (Device::Cpu(_), _) => cpu::forward::<f32>(&mut y, &mut r, x, &widened(cx, w)?, eps)?,
            (Device::Cuda(cuda), _) => cuda::forward(cuda, &mut y, &mut r, x, w, eps)?,
            (Device::Plan(_), _) => drop(widened(cx, w)?),
        }
        save.keep_all([x, w, &r]);
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
        if dx.wants(0) {
            dx.add(0, input_gradient(cx, saved, dy, None)?)?;
        }
        if dx.wants(1) {
            dx.add(1, weight_gradient(cx, saved, dy)?)?;
        }
        Ok(())
    }
}

struct AddRmsNorm {
    eps: f32,
}

impl Op for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add_rmsnorm"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (a, b, w) = (x[0], x[1], x[2]);
        let rows = checked_rows(a, w)?;
        if a.shape() != b.shape() || a.dtype() != b.dtype() {
            return Err(Error::new(format!("residual {a:?} and delta {b:?} differ")));
        }
        let mut sum = cx.empty(*a.shape(), a.dtype());
        let mut y = cx.empty(*a.shape(), a.dtype());
        let mut r = cx.empty([rows], DType::F32);
        let (out, eps) = ([&mut sum, &mut y, &mut r], self.eps);
        match (cx.device(), a.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::add_forward::<bf16>(out, a, b, &widened(cx, w)?, eps)?,
            (Device::Cpu(_), _) => cpu::add_forward::<f32>(out, a, b, &widened(cx, w)?, eps)?,
            (Device::Cuda(cuda), _) => cuda::add_forward(cuda, out, [a, b, w], eps)?,
            (Device::Plan(_), _) => drop(widened(cx, w)?),
        }
        save.keep_all([&sum, w, &r]);
        Ok(vec![sum, y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let dsum = dy[0].as_ref();
        if dx.wants(0) || dx.wants(1) {
            let both = match (&dy[1], dsum) {
                (Some(dy), _) => input_gradient(cx, saved, dy, dsum)?,
                (None, Some(dsum)) => dsum.clone(),
                (None, None) => return Ok(()),
            };
            dx.add(0, both.clone())?;
            dx.add(1, both)?;
        }
        match &dy[1] {
            Some(dy) if dx.wants(2) => dx.add(2, weight_gradient(cx, saved, dy)?),
            _ => Ok(()),
        }
    }
}

/// Returns the number of rows of x (T, C), if w is (C).
fn checked_rows(x: &Tensor, w: &Tensor) -> Result<usize> {
    let (rows, columns) = x.shape().as_matrix();
    if w.shape()[..] != [columns] || x.dtype() == DType::I32 || w.dtype() == DType::I32 {
        return Err(Error::new(format!("x is {x:?}, w is {w:?}: w must be as long as a row of x")));
    }
    Ok(rows)
}

/// Returns dx of y = rmsnorm(x), plus the gradient `dsum` of x's other uses.
fn input_gradient(cx: &Ctx, saved: &Saved, dy: &Tensor, dsum: Option<&Tensor>) -> Result<Tensor> {
    let [x, w, r] = &saved[..] else { unreachable!("forward saved x, w and r") };
    let mut dx = cx.empty(*x.shape(), x.dtype());
    match (cx.device(), x.dtype()) {
        (Device::Cpu(_), DType::BF16) => cpu::backward::<bf16>(&mut dx, dy, dsum, x, &widened(cx, w)?, r)?,
        (Device::Cpu(_), _) => cpu::backward::<f32>(&mut dx, dy, dsum, x, &widened(cx, w)?, r)?,
        (Device::Cuda(cuda), _) => cuda::backward(cuda, &mut dx, dy, dsum, [x, w, r])?,
        (Device::Plan(_), _) => drop(widened(cx, w)?),
    }
    Ok(dx)
}

fn weight_gradient(cx: &Ctx, saved: &Saved, dy: &Tensor) -> Result<Tensor> {
    let [x, w, r] = &saved[..] else { unreachable!("forward saved x, w and r") };
    let mut dw = cx.device().empty(Label::Gradients, *w.shape(), w.dtype());
    match (cx.device(), x.dtype(), w.dtype()) {
        (Device::Cpu(_), DType::BF16, DType::BF16) => cpu::backward_w::<bf16, bf16>(&mut dw, dy, x, r)?,
        (Device::Cpu(_), DType::BF16, _) => cpu::backward_w::<bf16, f32>(&mut dw, dy, x, r)?,
        (Device::Cpu(_), _, DType::BF16) => cpu::backward_w::<f32, bf16>(&mut dw, dy, x, r)?,
        (Device::Cpu(_), _, _) => cpu::backward_w::<f32, f32>(&mut dw, dy, x, r)?,
        (Device::Cuda(cuda), ..) => cuda::backward_w(cx, cuda, &mut dw, dy, x, r)?,
        (Device::Plan(_), ..) => {}
    }
    Ok(dw)
}
