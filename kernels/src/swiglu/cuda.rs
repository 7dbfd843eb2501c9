//! The launches of `swiglu.cu`.

use crate::cuda::{HEADERS, flat_grid, wide};
use codelsi_engine::cuda::{Arg, Cuda, Source};
use codelsi_engine::{DType, Result, Tensor};

/// Forward and backward.
pub static SOURCE: Source = Source {
    name: "swiglu.cu",
    text: include_str!("swiglu.cu"),
    headers: HEADERS,
    variants: &["E=bf16", "E=float"],
};

/// y = silu(gate)·up.
pub fn forward(cuda: &Cuda, y: &mut Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    let n = gate.shape().elements() as i64;
    start(cuda, "swiglu", gate, &mut [Arg::Out(y), Arg::In(gate), Arg::In(up), Arg::I64(n)])
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
    let n = gate.shape().elements() as i64;
    let args = &mut [Arg::Out(dgate), Arg::Out(dup), Arg::In(dy), Arg::In(gate), Arg::In(up), Arg::I64(n)];
    start(cuda, "swiglu_backward", gate, args)
}

fn start(cuda: &Cuda, kernel: &str, gate: &Tensor, args: &mut [Arg]) -> Result<()> {
    let variant = if gate.dtype() == DType::BF16 { "E=bf16" } else { "E=float" };
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    let grid = flat_grid(gate.shape().elements(), wide(gate.dtype()));
    // SAFETY: the tensors are alike in shape, the last argument is their number of elements, and no kernel goes
    // beyond it.
    unsafe { kernel.launch(grid, args) }
}
