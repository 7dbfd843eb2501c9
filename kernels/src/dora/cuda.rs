//! The launches of `dora.cu`.

use crate::cuda::{HEADERS, access_width, all_weighted, row_threads, weighted};
use crate::gemm::cuda::{Accumulate, PartialSums, sum};
use crate::lora::LoraLinear;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Result, Tensor};

/// Lengths of rows, scaling of channels and its backward.
pub static SOURCE: Source = Source {
    name: "dora.cu",
    text: include_str!("dora.cu"),
    headers: HEADERS,
    constants: &[Define::int("ROWS", ROWS), Define::int("SLAB", SLAB)],
    variants: all_variants,
};

/// Rows of W whose norms one warp of `dora_norms` computes.
const ROWS: usize = 4;
/// Rows that one block of `magnitudes` sums.
const SLAB: usize = 64;
/// Threads of a block of `dora_norms` and `magnitudes`.
const THREADS: usize = 128;

/// Computes n = the norms of the rows of W + s B A.
pub fn norms(cuda: &Cuda, n: &mut Tensor, target: &LoraLinear) -> Result<()> {
    let ((rows, columns), rank) = (target.w.shape().as_matrix(), target.b.shape()[1]);
    let variant = weighted(DType::F32, target.w.dtype(), 4);
    let mut args =
        vec![Arg::Out(n), Arg::In(target.w), Arg::In(target.a), Arg::In(target.b), Arg::F32(target.scale)];
    args.extend([rows, columns, rank].map(|n| Arg::I32(n as i32)));
    let grid = Grid::new(rows.div_ceil(THREADS / 32 * ROWS), THREADS);
    start(cuda, "dora_norms", variant, grid, &mut args)
}

/// Computes y = x ⊙ m/n.
pub fn magnify(cuda: &Cuda, y: &mut Tensor, x: &Tensor, m: &Tensor, n: &Tensor) -> Result<()> {
    let (rows, channels) = x.shape().as_matrix();
    let vec = access_width(x.dtype(), channels);
    let grid = Grid::new(rows, row_threads(channels, vec));
    let args = &mut [Arg::Out(y), Arg::In(x), Arg::In(m), Arg::In(n), Arg::I32(channels as i32)];
    start(cuda, "magnify", variant(x, vec), grid, args)
}

/// Computes dm = Σ dy ⊙ y / m over the rows: slabs first, then their sums, ascending.
pub fn magnitudes(cx: &Ctx, cuda: &Cuda, dm: &mut Tensor, dy: &Tensor, y: &Tensor, m: &Tensor) -> Result<()> {
    let (rows, channels) = y.shape().as_matrix();
    let slabs = rows.div_ceil(SLAB);
    let mut parts = cx.scratch([slabs, channels], DType::F32);
    let grid = Grid { blocks: [channels.div_ceil(THREADS), slabs, 1], threads: THREADS, shared: 0 };
    let mut args = vec![Arg::Out(&mut parts), Arg::In(dy), Arg::In(y), Arg::In(m)];
    args.extend([rows, channels].map(|n| Arg::I32(n as i32)));
    start(cuda, "magnitudes", variant(y, access_width(y.dtype(), channels)), grid, &mut args)?;
    let all =
        PartialSums { parts: &parts, at: 0, pitch: channels, stride: channels, slices: slabs, scale: 1.0 };
    sum(cuda, dm, (0, channels), (1, channels), Accumulate::Overwrite, all)
}

fn variant(x: &Tensor, vec: usize) -> Variant {
    weighted(x.dtype(), x.dtype(), vec)
}

/// `dora_norms` is compiled for each weight; the others read no weight and take x's type for it.
fn all_variants() -> Vec<Variant> {
    let unused = [weighted(DType::BF16, DType::F32, 1), weighted(DType::F32, DType::BF16, 1)];
    all_weighted().into_iter().filter(|variant| !unused.contains(variant)).collect()
}

fn start(cuda: &Cuda, kernel: &str, variant: Variant, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    // SAFETY: the op has checked that the tensors fit together, and the grid covers rows and channels of just these
    // tensors; the kernels guard the ends of both.
    unsafe { kernel.launch(grid, args) }
}
