//! SwiGLU: the gated activation of Llama's MLP (Shazeer, arXiv 2002.05202).
//!
//! **math** with s = 1/(1 + e^−gate): y = gate·s·up.
//! dup = dy·gate·s and dgate = dy·up·s·(1 + gate·(1 − s)).
//!
//! **shapes** gate, up, y (T, F).
//!
//! **layout** contiguous.
//!
//! **launch** one thread per 16 bytes of each array.
//!
//! **numerics** f32 from load to store, one rounding. Backward recomputes s.
//!
//! **traffic** forward 3·T·F elements; backward reads gate, up, dy and writes both gradients: 5·T·F.

mod bugs;
pub mod spec;

use crate::elementwise::{self, Elementwise};
use crate::simd::sigmoid;
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, Result, Tensor};

/// Returns silu(gate) · up, elementwise: all (T, F).
///
/// # Errors
/// When gate and up differ in shape or storage type.
pub fn swiglu(cx: &Ctx, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    cx.apply_one(Elementwise { name: "swiglu", source: &SOURCE, value, gradients }, &[gate, up])
}

static SOURCE: Source = elementwise::source("swiglu.cu", include_str!("swiglu.cu"));

#[inline(always)]
fn value([gate, up]: [f32; 2]) -> [f32; 1] {
    [gate * sigmoid(gate) * up]
}

#[inline(always)]
fn gradients([dy, gate, up]: [f32; 3]) -> [f32; 2] {
    let s = sigmoid(gate);
    [dy * up * s * (1.0 + gate * (1.0 - s)), dy * gate * s]
}
