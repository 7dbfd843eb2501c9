//! The launches of `bias.cu`.

use crate::cuda::{HEADERS, access_width, all_weighted, row_threads, weighted};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Result, Tensor};

/// A vector added to rows, and the sum of rows.
pub static SOURCE: Source = Source {
    name: "bias.cu",
    text: include_str!("bias.cu"),
    headers: HEADERS,
    constants: &[Define::int("WARPS", WARPS)],
    variants: all_weighted,
};

/// Warps of a block that sums rows.
const WARPS: usize = 8;

/// Computes y = x + b, row by row.
pub fn forward(cuda: &Cuda, y: &mut Tensor, x: &Tensor, b: &Tensor) -> Result<()> {
    let (rows, columns) = x.shape().as_matrix();
    let grid = Grid::new(rows, row_threads(columns, access_width(x.dtype(), columns)));
    let args = &mut [Arg::Out(y), Arg::In(x), Arg::In(b), Arg::I32(columns as i32)];
    start(cuda, "add_bias", variant(x, b), grid, args)
}

/// Computes db = Σ dy over the rows.
pub fn backward_b(cuda: &Cuda, db: &mut Tensor, dy: &Tensor) -> Result<()> {
    let (rows, columns) = dy.shape().as_matrix();
    let variant = variant(dy, db);
    let grid = Grid::new(columns.div_ceil(32 * access_width(dy.dtype(), columns)), 32 * WARPS);
    let args = &mut [Arg::Out(db), Arg::In(dy), Arg::I32(rows as i32), Arg::I32(columns as i32)];
    start(cuda, "add_bias_db", variant, grid, args)
}

fn variant(x: &Tensor, b: &Tensor) -> Variant {
    weighted(x.dtype(), b.dtype(), access_width(x.dtype(), b.shape().elements()))
}

fn start(cuda: &Cuda, kernel: &str, variant: Variant, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    // SAFETY: the op has checked that rows are as long as b, and the grid covers rows and columns of just these
    // tensors; the kernels guard the ends of rows.
    unsafe { kernel.launch(grid, args) }
}
