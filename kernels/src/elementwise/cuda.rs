//! The launches of `elementwise.cu`.

use crate::cuda::{HEADERS, STORAGE, element, elementwise_variant, flat_grid};
use codelsi_engine::cuda::{Arg, Cuda, Source, Variant};
use codelsi_engine::{DType, Result, Tensor};

/// Sums, activations and conversions.
pub static SOURCE: Source = Source {
    name: "elementwise.cu",
    text: include_str!("elementwise.cu"),
    headers: HEADERS,
    constants: &[],
    variants: || STORAGE.map(variant).into(),
};

/// Computes y = a + b.
pub fn add(cuda: &Cuda, y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    elementwise_variant(cuda, (&SOURCE, variant(a.dtype()), "add"), [y], &[a, b])
}

/// Computes y = x where `of` is above 0, else 0.
pub fn relu(cuda: &Cuda, y: &mut Tensor, x: &Tensor, of: &Tensor) -> Result<()> {
    elementwise_variant(cuda, (&SOURCE, variant(x.dtype()), "relu"), [y], &[x, of])
}

/// Computes y = x, from the one storage type to the other.
pub fn convert(cuda: &Cuda, y: &mut Tensor, x: &Tensor) -> Result<()> {
    let n = x.shape().elements();
    let kernel = cuda.kernel(&SOURCE, variant(x.dtype()), "convert")?;
    // SAFETY: the tensors have one shape, the last argument is their number of elements, and the kernel does not
    // go beyond it.
    unsafe { kernel.launch(flat_grid(n, 4), &mut [Arg::Out(y), Arg::In(x), Arg::I64(n as i64)]) }
}

/// Defines E, the type that is read, and TO, the other storage type.
fn variant(from: DType) -> Variant {
    element(from).dtype("TO", if from == DType::BF16 { DType::F32 } else { DType::BF16 })
}
