//! The bias of a linear: a vector added to every row.
//!
//! **math** y_t = x_t + b; dx = dy and db = Σ_t dy_t.
//!
//! **shapes** x, y (T, N); b (N).
//!
//! **layout** row-major; a row is one token.
//!
//! **launch** one block per row, 16 bytes per access; db has one block per 32 accesses' columns, whose warps add every
//! WARPS-th row and then each other.
//!
//! **numerics** f32, rounded once where y is stored. x is a product that was rounded when it was stored, so in bf16 y has
//! one rounding more than where a product adds the bias before it is stored. b may have another storage type than x. db
//! adds rows in ascending order, on a GPU warp by warp.
//!
//! **traffic** forward reads x and writes y: 2·T·N elements. Backward moves nothing, and reads dy when db is wanted.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns x + b, row by row: x (T, N), b (N).
///
/// # Errors
/// When the length of b is not that of a row of x.
pub fn add_bias(cx: &Ctx, x: &Tensor, b: &Tensor) -> Result<Tensor> {
    cx.apply_one(AddBias, &[x, b])
}

struct AddBias;

impl Op for AddBias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (x, b) = (x[0], x[1]);
        if b.shape()[..] != [x.shape().as_matrix().1] || x.dtype() == DType::I32 || b.dtype() == DType::I32 {
            return Err(Error::new(format!("x is {x:?}, b is {b:?}: b must be as long as a row of x")));
        }
        let mut y = cx.empty(*x.shape(), x.dtype());
        match (cx.device(), x.dtype(), b.dtype()) {
            (Device::Cpu(_), DType::BF16, DType::BF16) => cpu::forward::<bf16, bf16>(&mut y, x, b)?,
            (Device::Cpu(_), DType::BF16, _) => cpu::forward::<bf16, f32>(&mut y, x, b)?,
            (Device::Cpu(_), _, DType::BF16) => cpu::forward::<f32, bf16>(&mut y, x, b)?,
            (Device::Cpu(_), _, _) => cpu::forward::<f32, f32>(&mut y, x, b)?,
            (Device::Cuda(cuda), ..) => cuda::forward(cuda, &mut y, x, b)?,
            (Device::Plan(_), ..) => {}
        }
        save.keep(b);
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
        dx.add(0, dy.clone())?;
        if dx.wants(1) {
            dx.add(1, column_sums(cx, dy, &saved[0])?)?;
        }
        Ok(())
    }
}

/// Returns db = Σ_t dy_t, stored as b is.
fn column_sums(cx: &Ctx, dy: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut db = cx.device().empty(Label::Gradients, *b.shape(), b.dtype());
    match (cx.device(), dy.dtype(), b.dtype()) {
        (Device::Cpu(_), DType::BF16, DType::BF16) => cpu::backward_b::<bf16, bf16>(&mut db, dy)?,
        (Device::Cpu(_), DType::BF16, _) => cpu::backward_b::<bf16, f32>(&mut db, dy)?,
        (Device::Cpu(_), _, DType::BF16) => cpu::backward_b::<f32, bf16>(&mut db, dy)?,
        (Device::Cpu(_), _, _) => cpu::backward_b::<f32, f32>(&mut db, dy)?,
        (Device::Cuda(cuda), ..) => cuda::backward_b(cuda, &mut db, dy)?,
        (Device::Plan(_), ..) => {}
    }
    Ok(db)
}
