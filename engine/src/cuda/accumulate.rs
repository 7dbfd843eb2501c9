//! The engine's only kernel: gradient accumulation on the tape.

use super::{Arg, Cuda, Grid, Source, Variant};
use crate::{DType, Error, Result, Tensor};

/// The CUDA source of `accumulate`.
pub static ACCUMULATE: Source = Source {
    name: "accumulate.cu",
    text: include_str!("accumulate.cu"),
    headers: &[],
    constants: &[],
    variants: || [DType::BF16, DType::F32].map(variant).into(),
};

const THREADS: usize = 256;

fn variant(dtype: DType) -> Variant {
    Variant::PLAIN.dtype("E", dtype)
}

impl Cuda {
    /// Adds `g` to `sum` in f32, and rounds to the storage type of both.
    pub(crate) fn accumulate(&self, sum: &mut Tensor, g: &Tensor) -> Result<()> {
        if g.dtype() == DType::I32 {
            return Err(Error::op("accumulate", "integers have no gradient"));
        }
        let elements = g.shape().elements();
        let grid = Grid::new(elements.div_ceil(THREADS * 16 / g.dtype().size()), THREADS);
        let kernel = self.kernel(&ACCUMULATE, variant(g.dtype()), "accumulate")?;
        // SAFETY: both tensors have `elements` elements (checked by the caller), and the kernel touches no others.
        unsafe { kernel.launch(grid, &mut [Arg::InOut(sum), Arg::In(g), Arg::I64(elements as i64)]) }
    }
}
