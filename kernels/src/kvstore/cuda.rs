//! The launches of `kvstore.cu`.

use super::TokenSlots;
use crate::cuda::{PRELUDE, access_width, all_packed, packed, row_threads};
use crate::rope::cuda::{ROTATION, pairs, threads};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Result, Tensor};

/// Copies, with and without a rotation.
pub static SOURCE: Source = Source {
    name: "kvstore.cu",
    text: include_str!("kvstore.cu"),
    headers: &[PRELUDE, ROTATION],
    constants: &[],
    variants: all_packed,
};

/// Copies row t of `rows` to slot t.
pub fn store(cuda: &Cuda, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let ((t, width), (limit, _)) = (rows.shape().as_matrix(), pages.shape().as_matrix());
    let vec = access_width(rows.dtype(), width);
    let [width_arg, limit] = [width, limit].map(|n| Arg::I32(n as i32));
    let args = &mut [Arg::InOut(pages), Arg::In(rows), Arg::In(slots), width_arg, limit];
    start(cuda, "kvstore", rows, vec, Grid::new(t, row_threads(width, vec)), args)
}

/// Rotates key t and copies it, and value t, to slot t.
pub fn rope_store(
    cuda: &Cuda,
    [k_pages, v_pages]: [&mut Tensor; 2],
    [k, v]: [&Tensor; 2],
    rows: TokenSlots,
) -> Result<()> {
    let ((t, width), (limit, _)) = (k.shape().as_matrix(), k_pages.shape().as_matrix());
    let (p, d) = rows.rope_table.shape().as_matrix();
    let vec = pairs(k.dtype(), d);
    let grid = Grid::new(t, threads(width / d, d, vec)?);
    let [heads, d, p, limit] = [width / d, d, p, limit].map(|n| Arg::I32(n as i32));
    let (positions, table, slots) = (Arg::In(rows.positions), Arg::In(rows.rope_table), Arg::In(rows.slots));
    let pages = [Arg::InOut(k_pages), Arg::InOut(v_pages)];
    let [to_k, to_v] = pages;
    let args = &mut [to_k, to_v, Arg::In(k), Arg::In(v), positions, table, slots, heads, d, p, limit];
    start(cuda, "rope_kvstore", k, vec, grid, args)
}

fn start(cuda: &Cuda, kernel: &str, rows: &Tensor, vec: usize, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, packed(rows.dtype(), vec), kernel)?;
    // SAFETY: the op has checked that rows and pages are equally wide, with a slot (and a position) each; slots and
    // positions are checked by the kernel.
    unsafe { kernel.launch(grid, args) }
}
