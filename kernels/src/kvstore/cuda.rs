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

/// Copies row t of `rows` (T, K·D) to slot t of `pages` (N, K, S, D).
pub fn store(cuda: &Cuda, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let ((t, width), [n, k, s, d]) = (rows.shape().as_matrix(), sizes(pages));
    let vec = access_width(rows.dtype(), pages.shape()[3]);
    let args = &mut [Arg::InOut(pages), Arg::In(rows), Arg::In(slots), n, k, s, d];
    start(cuda, "kvstore", rows, vec, Grid::new(t, row_threads(width, vec)), args)
}

/// Rotates query t of q (T, H·D) into y; rotates key t and copies it, and value t, (T, K·D) each, to slot t of their
/// pages (N, K, S, D).
pub fn rope_store(
    cuda: &Cuda,
    y: &mut Tensor,
    [k_pages, v_pages]: [&mut Tensor; 2],
    [q, k, v]: [&Tensor; 3],
    rows: TokenSlots,
) -> Result<()> {
    let (t, p) = (k.shape().as_matrix().0, rows.rope_table.shape().as_matrix().0);
    let (kv_heads, head_dim) = (k_pages.shape()[1], k_pages.shape()[3]);
    let heads = q.shape().as_matrix().1 / head_dim;
    let (vec, all) = (pairs(k.dtype(), head_dim), heads + 2 * kv_heads);
    let threads = threads(all, head_dim, vec)?;
    let of_block = threads / (head_dim / 2 / vec);
    let grid = Grid { blocks: [t, all.div_ceil(of_block), 1], threads, shared: 0 };
    let [n, kv_heads, s, d] = sizes(k_pages);
    let [p, heads] = [p, heads].map(|n| Arg::I32(n as i32));
    let outputs = [Arg::Out(y), Arg::InOut(k_pages), Arg::InOut(v_pages)];
    let inputs = [q, k, v, rows.positions, rows.rope_table, rows.slots].map(Arg::In);
    let args = outputs.into_iter().chain(inputs).chain([p, n, heads, kv_heads, s, d]);
    start(cuda, "rope_kvstore", k, vec, grid, &mut args.collect::<Vec<_>>())
}

/// Returns N, K, S and D of pages.
fn sizes<'a>(pages: &Tensor) -> [Arg<'a>; 4] {
    [0, 1, 2, 3].map(|i| Arg::I32(pages.shape()[i] as i32))
}

fn start(cuda: &Cuda, kernel: &str, rows: &Tensor, vec: usize, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, packed(rows.dtype(), vec), kernel)?;
    // SAFETY: the op has checked that rows have the heads of the pages, with a slot (and a position) each; slots and
    // positions are checked by the kernel.
    unsafe { kernel.launch(grid, args) }
}
