//! The launches of `rmsnorm.cu`.

use crate::cuda::{HEADERS, access_width, all_weighted, weighted};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Error, Result, Tensor};

/// Forward, with and without a sum before it, and backward.
pub static SOURCE: Source = Source {
    name: "rmsnorm.cu",
    text: include_str!("rmsnorm.cu"),
    headers: HEADERS,
    constants: &[
        Define::int("SLAB", SLAB),
        Define::int("VECTOR_PACKS", VECTOR_PACKS),
        Define::int("ELEMENT_PACKS", ELEMENT_PACKS),
    ],
    variants: all_weighted,
};

/// Accesses that a thread keeps of a row: of 16 bytes, or of one element.
const VECTOR_PACKS: usize = 4;
const ELEMENT_PACKS: usize = 8;
/// Rows that one block of the first stage of dw adds.
const SLAB: usize = 64;
/// Threads of a block of either stage.
const THREADS: usize = 128;

/// Computes y = rmsnorm(x) and r = 1/rms of each row.
pub fn forward(cuda: &Cuda, y: &mut Tensor, r: &mut Tensor, x: &Tensor, w: &Tensor, eps: f32) -> Result<()> {
    let columns = w.shape().elements();
    let args =
        &mut [Arg::Out(y), Arg::Out(r), Arg::In(x), Arg::In(w), Arg::F32(eps), Arg::I32(columns as i32)];
    start(cuda, "rmsnorm", row_variant(x, w.dtype()), row_grid(x)?, args)
}

/// Computes sum = a + b, y = rmsnorm(sum) and r = 1/rms of each row of the sum.
pub fn add_forward(
    cuda: &Cuda,
    [sum, y, r]: [&mut Tensor; 3],
    [a, b, w]: [&Tensor; 3],
    eps: f32,
) -> Result<()> {
    let columns = w.shape().elements();
    let args = &mut [
        Arg::Out(sum),
        Arg::Out(y),
        Arg::Out(r),
        Arg::In(a),
        Arg::In(b),
        Arg::In(w),
        Arg::F32(eps),
        Arg::I32(columns as i32),
    ];
    start(cuda, "add_rmsnorm", row_variant(a, w.dtype()), row_grid(a)?, args)
}

/// Computes dx = r·(g − x·r²·mean(g·x)) with g = dy·w, plus `dsum` if there is one.
pub fn backward(
    cuda: &Cuda,
    dx: &mut Tensor,
    dy: &Tensor,
    dsum: Option<&Tensor>,
    [x, w, r]: [&Tensor; 3],
) -> Result<()> {
    let columns = w.shape().elements();
    let args = &mut [
        Arg::Out(dx),
        Arg::In(dy),
        Arg::Maybe(dsum),
        Arg::In(x),
        Arg::In(w),
        Arg::In(r),
        Arg::I32(columns as i32),
    ];
    start(cuda, "rmsnorm_dx", row_variant(x, w.dtype()), row_grid(x)?, args)
}

/// Computes dw = Σ dy·x·r over the rows: slabs first, then their sums, ascending.
pub fn backward_w(cx: &Ctx, cuda: &Cuda, dw: &mut Tensor, dy: &Tensor, x: &Tensor, r: &Tensor) -> Result<()> {
    let (rows, columns) = x.shape().as_matrix();
    let slabs = rows.div_ceil(SLAB);
    let mut parts = cx.scratch([slabs, columns], DType::F32);
    let variant = row_variant(x, dw.dtype());
    let blocks = columns.div_ceil(THREADS * access_width(x.dtype(), columns));
    let grid = Grid { blocks: [blocks, slabs, 1], threads: THREADS, shared: 0 };
    let (t, c) = (rows as i32, columns as i32);
    let args = &mut [Arg::Out(&mut parts), Arg::In(dy), Arg::In(x), Arg::In(r), Arg::I32(t), Arg::I32(c)];
    start(cuda, "rmsnorm_dw_parts", variant, grid, args)?;
    let grid = Grid::new(columns.div_ceil(THREADS), THREADS);
    let args = &mut [Arg::Out(dw), Arg::In(&parts), Arg::I32(slabs as i32), Arg::I32(c)];
    start(cuda, "rmsnorm_dw", variant, grid, args)
}

/// Returns a grid of one block a row, with a thread for every few packs.
fn row_grid(x: &Tensor) -> Result<Grid> {
    let (rows, columns) = x.shape().as_matrix();
    let vec = access_width(x.dtype(), columns);
    let packs = if vec > 1 { VECTOR_PACKS } else { ELEMENT_PACKS };
    let threads = columns.div_ceil(vec * packs).next_multiple_of(32);
    if threads > 1024 {
        let longest = 1024 * vec * packs;
        return Err(Error::new(format!(
            "a row of x {x:?} is longer than {longest}, the maximum for its alignment"
        )));
    }
    Ok(Grid::new(rows, threads))
}

fn row_variant(x: &Tensor, w: DType) -> Variant {
    weighted(x.dtype(), w, access_width(x.dtype(), x.shape().as_matrix().1))
}

fn start(cuda: &Cuda, kernel: &str, variant: Variant, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    // SAFETY: the op has checked that rows are as long as w, and the grid covers rows and columns of just these
    // tensors; the kernels guard the ends of both.
    unsafe { kernel.launch(grid, args) }
}
