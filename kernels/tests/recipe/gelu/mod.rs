//! GELU in its tanh form (Hendrycks and Gimpel 2016), written as a sigmoid.
//!
//! **math** with u = 2√(2/π)·(x + 0.044715·x³) and s = 1/(1 + e^−u): y = x·s; dx = dy·s·(1 + x·u′·(1 − s)).
//!
//! **shapes** x, y any. **layout** contiguous. **launch** a thread moves 16 bytes of each array.
//!
//! **numerics** f32 from load to store, one rounding. **traffic** forward 2 arrays, backward 3.

mod bugs;
pub mod spec;

use crate::elementwise::{self, Elementwise};
use crate::simd::sigmoid;
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, Result, Tensor};

/// Returns x · Φ(x), elementwise.
///
/// # Errors
/// When x holds integers.
pub fn gelu(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
    cx.apply_one(Elementwise { name: "gelu", source: &SOURCE, value, gradients }, &[x])
}

static SOURCE: Source = elementwise::source("gelu.cu", include_str!("gelu.cu"));

#[inline(always)]
fn value([x]: [f32; 1]) -> [f32; 1] {
    [x * gate(x)]
}

#[inline(always)]
fn gradients([dy, x]: [f32; 2]) -> [f32; 1] {
    let (s, slope) = (gate(x), 1.595_769 * (1.0 + 3.0 * 0.044715 * x * x));
    [dy * s * (1.0 + x * slope * (1.0 - s))]
}

#[inline(always)]
fn gate(x: f32) -> f32 {
    sigmoid(1.595_769 * (x + 0.044715 * x * x * x))
}
