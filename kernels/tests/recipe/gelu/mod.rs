//! GELU in its tanh form (Hendrycks and Gimpel 2016), written as a sigmoid.
//!
//! **math** with u = 2√(2/π)·(x + 0.044715·x³) and s = 1/(1 + e^−u): y = x·s; dx = dy·s·(1 + x·u′·(1 − s)).
//!
//! **shapes** x, y any. **layout** contiguous. **launch** a thread moves 16 bytes of each array.
//!
//! **numerics** f32 from load to store, one rounding. **traffic** forward 2 arrays, backward 3.

mod bugs;
pub mod spec;

use crate::{cpu, cuda, simd};
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, Device, InputGrads, Op, Outs, Result, Saved, Tensor};

/// x · Φ(x), elementwise.
///
/// # Errors
/// For integers.
pub fn gelu(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    cx.apply_one(Gelu, &[x])
}

static SOURCE: Source = cuda::elementwise_source("gelu.cu", include_str!("gelu.cu"));

struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (x, mut y) = (x[0], cx.empty(*x[0].shape(), x[0].dtype()));
        match cx.device() {
            Device::Cpu(_) => cpu::elementwise([&mut y], [x], value)?,
            Device::Cuda(cuda) => cuda::elementwise(cuda, &SOURCE, "gelu", [&mut y], &[x])?,
            Device::Plan(_) => {}
        }
        save.keep_all([x]);
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let (Some(dy), x) = (&dy[0], &saved[0]) else { return Ok(()) };
        let mut g = cx.empty(*x.shape(), x.dtype());
        match cx.device() {
            Device::Cpu(_) => cpu::elementwise([&mut g], [dy, x], gradient)?,
            Device::Cuda(cuda) => cuda::elementwise(cuda, &SOURCE, "gelu_backward", [&mut g], &[dy, x])?,
            Device::Plan(_) => {}
        }
        dx.add(0, g)
    }
}

#[inline(always)]
fn value([x]: [f32; 1]) -> [f32; 1] {
    [x * gate(x)]
}

#[inline(always)]
fn gradient([dy, x]: [f32; 2]) -> [f32; 1] {
    let (s, slope) = (gate(x), 1.595_769 * (1.0 + 3.0 * 0.044715 * x * x));
    [dy * s * (1.0 + x * slope * (1.0 - s))]
}

#[inline(always)]
fn gate(x: f32) -> f32 {
    simd::sigmoid(1.595_769 * (x + 0.044715 * x * x * x))
}
