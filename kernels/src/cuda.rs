//! What the ops' launches share.

use codelsi_engine::DType;
use codelsi_engine::cuda::Grid;

/// What every kernel's source includes.
pub(crate) const PRELUDE: (&str, &str) = ("prelude.cuh", include_str!("prelude.cuh"));

/// The headers of a source that includes the prelude alone.
pub(crate) const HEADERS: &[(&str, &str)] = &[PRELUDE];

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

/// Elements in 16 bytes.
pub(crate) fn wide(dtype: DType) -> usize {
    16 / dtype.size()
}

/// One thread for every `pack` of `n` elements.
pub(crate) fn flat_grid(n: usize, pack: usize) -> Grid {
    const THREADS: usize = 256;
    Grid::new(n.div_ceil(THREADS * pack), THREADS)
}

/// Threads of a block that walks rows of `columns` elements in packs of `vec`.
pub(crate) fn row_threads(columns: usize, vec: usize) -> usize {
    columns.div_ceil(vec).next_multiple_of(32).clamp(32, 256)
}

/// The CPU, and the software GPU where there is a compiler; with `CODELSI_REQUIRE=all` there must be one.
#[cfg(test)]
pub(crate) fn devices() -> Vec<codelsi_engine::Device> {
    use codelsi_engine::Device;
    let emulated = Device::emulated("sm_80");
    if let Err(e) = &emulated {
        assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
        println!("skipped on the software GPU: {e}");
    }
    [Device::cpu()].into_iter().chain(emulated.ok()).collect()
}
