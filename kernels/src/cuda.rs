//! What the ops' launches share.

use codelsi_engine::DType;

/// The headers that a kernel's source may include.
pub(crate) const HEADERS: &[(&str, &str)] = &[("prelude.cuh", include_str!("prelude.cuh"))];

/// A storage type's name in CUDA.
pub(crate) fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F32 => "float",
        DType::I32 => "int",
    }
}

/// Elements that one access moves in rows of `columns` elements: 16 bytes, or one element where rows do not keep
/// to that alignment.
pub(crate) fn vec(dtype: DType, columns: usize) -> usize {
    let wide = 16 / dtype.size();
    if columns.is_multiple_of(wide) { wide } else { 1 }
}
