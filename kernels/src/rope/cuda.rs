//! The launch of `rope.cu`.

use crate::cuda::{PRELUDE, access_width, all_packed, packed};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{DType, Error, Result, Tensor};

/// The rotation of a pair, which `kvstore` uses too.
pub(crate) const ROTATION: (&str, &str) = ("rope.cuh", include_str!("rope.cuh"));

/// The rotation of heads.
pub static SOURCE: Source = Source {
    name: "rope.cu",
    text: include_str!("rope.cu"),
    headers: &[PRELUDE, ROTATION],
    constants: &[],
    variants: all_packed,
};

/// Computes y = every head of x, rotated by `direction` times its token's angles.
pub fn rotate(
    cuda: &Cuda,
    y: &mut Tensor,
    x: &Tensor,
    positions: &Tensor,
    table: &Tensor,
    direction: f32,
) -> Result<()> {
    let ((t, columns), (p, d)) = (x.shape().as_matrix(), table.shape().as_matrix());
    let vec = pairs(x.dtype(), d);
    let kernel = cuda.kernel(&SOURCE, packed(x.dtype(), vec), "rope")?;
    let grid = Grid::new(t, threads(columns / d, d, vec)?);
    let [h, d, p] = [columns / d, d, p].map(|n| Arg::I32(n as i32));
    let args =
        &mut [Arg::Out(y), Arg::In(x), Arg::In(positions), Arg::In(table), Arg::F32(direction), h, d, p];
    // SAFETY: the op has checked that rows are H heads of the table's width, with a position each; positions are
    // checked by the kernel.
    unsafe { kernel.launch(grid, args) }
}

/// Returns the threads of a block that rotates `heads` heads of `head_dim` channels: whole heads, a few at a time.
pub(crate) fn threads(heads: usize, head_dim: usize, vec: usize) -> Result<usize> {
    const LONGEST: usize = 1024;
    match head_dim / 2 / vec {
        parts if head_dim <= LONGEST => Ok((parts * heads).min(128).max(parts).next_multiple_of(32)),
        _ => Err(Error::new(format!("head_dim {head_dim} is beyond {LONGEST}"))),
    }
}

/// Returns the pairs of a head of `head_dim` channels that one thread rotates.
pub(crate) fn pairs(dtype: DType, head_dim: usize) -> usize {
    access_width(dtype, head_dim / 2)
}
