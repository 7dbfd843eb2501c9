//! The launches of `swiglu.cu`.

use crate::cuda::{HEADERS, element, elements, elementwise};
use codelsi_engine::cuda::{Cuda, Source};
use codelsi_engine::{Result, Tensor};

/// Forward and backward.
pub static SOURCE: Source = Source {
    name: "swiglu.cu",
    text: include_str!("swiglu.cu"),
    headers: HEADERS,
    constants: &[],
    variants: elements,
};

/// y = silu(gate)·up.
pub fn forward(cuda: &Cuda, y: &mut Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    elementwise(cuda, (&SOURCE, element(gate.dtype()), "swiglu"), [y], &[gate, up])
}

/// Both gradients in one pass.
pub fn backward(
    cuda: &Cuda,
    dgate: &mut Tensor,
    dup: &mut Tensor,
    dy: &Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> Result<()> {
    let kernel = (&SOURCE, element(gate.dtype()), "swiglu_backward");
    elementwise(cuda, kernel, [dgate, dup], &[dy, gate, up])
}
