//! Elementwise ops: addition, ReLU, and conversion of the storage type.
//!
//! **math** `add`: y = a + b; da = db = dy. `relu`: y = max(x, 0); dx = dy where y > 0, else 0. `cast`: y = x in
//! another storage type; dx = dy in x's own.
//!
//! **shapes** any, the same for all.
//!
//! **layout** contiguous.
//!
//! **launch** one thread per 16 bytes of each array.
//!
//! **numerics** f32 arithmetic, rounded once to nearest even. Widening is exact.
//!
//! **traffic** every operand is read once and the result written once; the backward of `add` moves nothing.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns a + b, in the storage type that both share.
///
/// # Errors
/// When the shapes or storage types differ.
pub fn add(cx: &Ctx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    cx.apply_one(Add, &[a, b])
}

/// Returns max(x, 0).
///
/// # Errors
/// When x holds integers.
pub fn relu(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    cx.apply_one(Relu, &[x])
}

/// Returns `x` converted to storage type `dtype`; `x` itself when it has that type already.
///
/// # Errors
/// When either type is an integer type.
pub fn cast(cx: &Ctx, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    cx.apply_one(Cast(dtype), &[x])
}

/// Returns `x` in f32 for use inside of an op: itself, or a widened copy in scratch memory.
pub(crate) fn widened(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    if x.dtype() == DType::F32 {
        return Ok(x.detach());
    }
    let mut y = cx.scratch(*x.shape(), DType::F32);
    convert(cx, &mut y, x)?;
    Ok(y)
}

struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let (a, b) = (x[0], x[1]);
        if a.shape() != b.shape() || a.dtype() != b.dtype() {
            return Err(Error::new(format!("{a:?} and {b:?} differ")));
        }
        let mut y = cx.empty(*a.shape(), a.dtype());
        match (cx.device(), a.dtype()) {
            (Device::Cpu(_), DType::F32 | DType::BF16) => cpu::add(&mut y, a, b)?,
            (Device::Cuda(cuda), DType::F32 | DType::BF16) => cuda::add(cuda, &mut y, a, b)?,
            (Device::Plan(_), DType::F32 | DType::BF16) => {}
            (_, DType::I32) => return Err(Error::new("integers cannot be added")),
        }
        Ok(vec![y])
    }

    fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx.add(0, dy.clone())?;
        dx.add(1, dy.clone())
    }
}

struct Relu;

impl Relu {
    /// Returns x where `sign_of` is above 0, else 0.
    fn masked(cx: &Ctx, x: &Tensor, sign_of: &Tensor) -> Result<Tensor> {
        let mut y = cx.empty(*x.shape(), x.dtype());
        match (cx.device(), x.dtype()) {
            (Device::Cpu(_), DType::F32 | DType::BF16) => cpu::relu(&mut y, x, sign_of)?,
            (Device::Cuda(cuda), DType::F32 | DType::BF16) => cuda::relu(cuda, &mut y, x, sign_of)?,
            (Device::Plan(_), DType::F32 | DType::BF16) => {}
            (_, DType::I32) => return Err(Error::new("relu takes no integers")),
        }
        Ok(y)
    }
}

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let y = Relu::masked(cx, x[0], x[0])?;
        save.keep(&y);
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        dy[0].as_ref().map_or(Ok(()), |dy| dx.add(0, Relu::masked(cx, dy, &saved[0])?))
    }
}

/// Conversion to this storage type.
struct Cast(DType);

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let mut y = cx.empty(*x[0].shape(), self.0);
        convert(cx, &mut y, x[0])?;
        Ok(vec![y])
    }

    fn backward(&self, cx: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let from = if self.0 == DType::F32 { DType::BF16 } else { DType::F32 };
        let mut g = cx.empty(*dy.shape(), from);
        convert(cx, &mut g, dy)?;
        dx.add(0, g)
    }
}

/// Converts x to the storage type of y.
pub(crate) fn convert(cx: &Ctx, y: &mut Tensor, x: &Tensor) -> Result<()> {
    match (cx.device(), x.dtype(), y.dtype()) {
        (Device::Cpu(_), DType::F32, DType::BF16) => cpu::convert::<f32, bf16>(y, x),
        (Device::Cpu(_), DType::BF16, DType::F32) => cpu::convert::<bf16, f32>(y, x),
        (Device::Cuda(cuda), DType::F32, DType::BF16) | (Device::Cuda(cuda), DType::BF16, DType::F32) => {
            cuda::convert(cuda, y, x)
        }
        (Device::Plan(_), DType::F32 | DType::BF16, DType::F32 | DType::BF16) => Ok(()),
        (_, from, to) => Err(Error::new(format!("cannot convert {from:?} to {to:?}"))),
    }
}
