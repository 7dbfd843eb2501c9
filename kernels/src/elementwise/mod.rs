//! Elementwise ops: addition, ReLU, and conversion of the storage type; and [`Elementwise`], of which others are made.
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
mod map;
pub mod spec;

pub use cuda::source;
pub use map::Elementwise;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
use cuda::SOURCE;
use map::map;

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
        Ok(map(cx, (&SOURCE, "add"), [x[0], x[1]], sum)?.into())
    }

    fn backward(&self, _: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx.add(0, dy.clone())?;
        dx.add(1, dy.clone())
    }
}

#[inline(always)]
fn sum([a, b]: [f32; 2]) -> [f32; 1] {
    [a + b]
}

/// Saves its output, which the op after it often saves too.
struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [y] = map(cx, (&SOURCE, "relu"), [x[0], x[0]], masked)?;
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
        let Some(dy) = &dy[0] else { return Ok(()) };
        let [g] = map(cx, (&SOURCE, "relu"), [dy, &saved[0]], masked)?;
        dx.add(0, g)
    }
}

/// Returns x where `of` is above 0, else 0.
#[inline(always)]
fn masked([x, of]: [f32; 2]) -> [f32; 1] {
    [if of > 0.0 { x } else { 0.0 }]
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
    let types = (x.dtype(), y.dtype());
    if !matches!(types, (DType::F32, DType::BF16) | (DType::BF16, DType::F32)) || x.shape() != y.shape() {
        return Err(Error::new(format!("cannot convert {x:?} to {y:?}")));
    }
    match cx.device() {
        Device::Cpu(_) => cpu::convert(y, x),
        Device::Cuda(cuda) => cuda::launch(cuda, (&SOURCE, "convert"), 4, [y], [x]),
        Device::Plan(_) => Ok(()),
    }
}
