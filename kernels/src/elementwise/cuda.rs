//! The launches of `elementwise.cu`.

use crate::cuda::{HEADERS, flat_grid, wide};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{DType, Result, Tensor};

/// Sums, activations and conversions.
pub static SOURCE: Source = Source {
    name: "elementwise.cu",
    text: include_str!("elementwise.cu"),
    headers: HEADERS,
    variants: &["E=bf16 TO=float", "E=float TO=bf16"],
};

/// y = a + b.
pub fn add(cuda: &Cuda, y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let n = a.shape().elements();
    let args = &mut [Arg::Out(y), Arg::In(a), Arg::In(b), Arg::I64(n as i64)];
    start(cuda, "add", a.dtype(), flat_grid(n, wide(a.dtype())), args)
}

/// y = x where `of` is above 0, else 0.
pub fn relu(cuda: &Cuda, y: &mut Tensor, x: &Tensor, of: &Tensor) -> Result<()> {
    let n = x.shape().elements();
    let args = &mut [Arg::Out(y), Arg::In(x), Arg::In(of), Arg::I64(n as i64)];
    start(cuda, "relu", x.dtype(), flat_grid(n, wide(x.dtype())), args)
}

/// y = x, from the one storage type to the other.
pub fn convert(cuda: &Cuda, y: &mut Tensor, x: &Tensor) -> Result<()> {
    let n = x.shape().elements();
    start(cuda, "convert", x.dtype(), flat_grid(n, 4), &mut [Arg::Out(y), Arg::In(x), Arg::I64(n as i64)])
}

fn start(cuda: &Cuda, kernel: &str, from: DType, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let variant = if from == DType::BF16 { "E=bf16 TO=float" } else { "E=float TO=bf16" };
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    // SAFETY: the tensors are alike in shape, the last argument is their number of elements, and no kernel goes
    // beyond it.
    unsafe { kernel.launch(grid, args) }
}
