//! Helpers for the launches of ops: headers, variants and grids.

use codelsi_engine::DType;
use codelsi_engine::cuda::{Grid, Variant};

/// The header that every kernel's source includes.
pub(crate) const PRELUDE: (&str, &str) = ("prelude.cuh", include_str!("prelude.cuh"));

/// The headers of a source that includes the prelude alone.
pub(crate) const HEADERS: &[(&str, &str)] = &[PRELUDE];

/// Storage types of activations and weights, in the order in which variants are listed.
pub(crate) const STORAGE: [DType; 2] = [DType::BF16, DType::F32];

/// The variant for elements of type `e`: `E`.
pub(crate) const fn element(e: DType) -> Variant {
    Variant::PLAIN.dtype("E", e)
}

/// Every [`element`] variant.
pub(crate) fn elements() -> Vec<Variant> {
    STORAGE.map(element).into()
}

/// The variant for elements of type `e` that are accessed `vec` at a time: `E` and `VEC`.
pub(crate) const fn packed(e: DType, vec: usize) -> Variant {
    element(e).int("VEC", vec)
}

/// Every [`packed`] variant: 16 bytes an access, or one element.
pub(crate) fn all_packed() -> Vec<Variant> {
    STORAGE.into_iter().flat_map(|e| [wide(e), 1].map(|vec| packed(e, vec))).collect()
}

/// The variant for elements of type `e`, `vec` at a time, and weights of type `w`: `E`, `W` and `VEC`.
pub(crate) const fn weighted(e: DType, w: DType, vec: usize) -> Variant {
    element(e).dtype("W", w).int("VEC", vec)
}

/// Every [`weighted`] variant.
pub(crate) fn all_weighted() -> Vec<Variant> {
    let pairs = STORAGE.into_iter().flat_map(|e| STORAGE.map(|w| (e, w)));
    pairs.flat_map(|(e, w)| [wide(e), 1].map(|vec| weighted(e, w, vec))).collect()
}

/// Returns the elements that one access moves in rows of `columns` elements: 16 bytes, or one element where rows are
/// not aligned to that.
pub(crate) fn access_width(dtype: DType, columns: usize) -> usize {
    let wide = 16 / dtype.size();
    if columns.is_multiple_of(wide) { wide } else { 1 }
}

/// Elements in 16 bytes.
pub(crate) fn wide(dtype: DType) -> usize {
    16 / dtype.size()
}

/// Returns a grid with a thread for every `pack` of `n` elements.
pub(crate) fn flat_grid(n: usize, pack: usize) -> Grid {
    const THREADS: usize = 256;
    Grid::new(n.div_ceil(THREADS * pack), THREADS)
}

/// Returns the threads of a block that processes rows of `columns` elements in packs of `vec`.
pub(crate) fn row_threads(columns: usize, vec: usize) -> usize {
    columns.div_ceil(vec).next_multiple_of(32).clamp(32, 256)
}

/// Returns the CPU, and the software GPU where there is an NVRTC.
#[cfg(test)]
pub(crate) fn devices() -> Vec<codelsi_engine::Device> {
    use codelsi_engine::Device;
    [Some(Device::cpu()), codelsi_testing::or_skip(Device::emulated("sm_80"))].into_iter().flatten().collect()
}
