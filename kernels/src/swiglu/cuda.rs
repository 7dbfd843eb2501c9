//! The launches of `swiglu.cu`.

use crate::cuda::{elementwise, elementwise_source};
use codelsi_engine::cuda::{Cuda, Source};
use codelsi_engine::{Result, Tensor};

/// Forward and backward.
pub static SOURCE: Source = elementwise_source("swiglu.cu", include_str!("swiglu.cu"));

/// Computes y = silu(gate)·up.
pub fn forward(cuda: &Cuda, y: &mut Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    elementwise(cuda, &SOURCE, "swiglu", [y], &[gate, up])
}

/// Computes both gradients in one pass.
pub fn backward(
    cuda: &Cuda,
    dgate: &mut Tensor,
    dup: &mut Tensor,
    dy: &Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> Result<()> {
    elementwise(cuda, &SOURCE, "swiglu_backward", [dgate, dup], &[dy, gate, up])
}
