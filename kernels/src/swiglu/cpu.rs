//! The CPU twin.

use crate::cpu::elementwise;
use crate::simd::sigmoid;
use codelsi_engine::{Result, Tensor};

/// Computes y = silu(gate)·up.
pub fn forward(y: &mut Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    elementwise(
        [y],
        [gate, up],
        #[inline(always)]
        |[gate, up]| [gate * sigmoid(gate) * up],
    )
}

/// Computes both gradients in one pass.
pub fn backward(dgate: &mut Tensor, dup: &mut Tensor, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    elementwise(
        [dgate, dup],
        [dy, gate, up],
        #[inline(always)]
        |[dy, gate, up]| {
            let s = sigmoid(gate);
            [dy * up * s * (1.0 + gate * (1.0 - s)), dy * gate * s]
        },
    )
}
