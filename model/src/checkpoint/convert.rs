//! Conversion of stored numbers to the type that ops compute with.

use codelsi_engine::{DType, Error, Result};
use codelsi_kernels::simd::Storage;
use half::{bf16, f16};
use safetensors::Dtype;

/// Returns the engine's type for a file's, if the engine has the same.
pub(super) fn engine_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Converts `bytes`, stored as `from`, to `dtype` (F32 or BF16, rounded to nearest even) in `to`.
pub(super) fn convert(from: Dtype, bytes: &[u8], dtype: DType, to: &mut [u8]) -> Result<()> {
    match dtype {
        DType::F32 => convert_to::<f32>(from, bytes, bytemuck::cast_slice_mut(to)),
        DType::BF16 => convert_to::<bf16>(from, bytes, bytemuck::cast_slice_mut(to)),
        DType::I32 => Err(Error::new("weights are not read as integers")),
    }
}

fn convert_to<T: Storage>(from: Dtype, bytes: &[u8], to: &mut [T]) -> Result<()> {
    match from {
        Dtype::F32 => convert_each(bytes, f32::from_le_bytes, to),
        Dtype::F16 => convert_each(bytes, |b| f16::from_le_bytes(b).to_f32(), to),
        Dtype::BF16 => convert_each(bytes, |b| bf16::from_le_bytes(b).get(), to),
        _ => return Err(Error::new(format!("stored as {from:?}; only F32, F16 and BF16 are read"))),
    }
    Ok(())
}

fn convert_each<const N: usize, T: Storage>(bytes: &[u8], get: impl Fn([u8; N]) -> f32, to: &mut [T]) {
    for (y, x) in to.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *y = T::put(get(*x));
    }
}
