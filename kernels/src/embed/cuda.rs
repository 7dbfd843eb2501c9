//! The launches of `embed.cu`.

use crate::cuda::{HEADERS, STORAGE, access_width, row_threads, wide};
use crate::rows::RowShard;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{DType, Result, Tensor};

/// Look-up and gradient.
pub static SOURCE: Source = Source {
    name: "embed.cu",
    text: include_str!("embed.cu"),
    headers: HEADERS,
    constants: &[Define::int("ORDER", ORDER)],
    variants: || {
        let pairs = STORAGE.into_iter().flat_map(|w| STORAGE.map(|e| (w, e)));
        pairs.flat_map(|(w, e)| [wide(w).min(wide(e)), 1].map(|vec| variant(w, e, vec))).collect()
    },
};

/// Threads of a block of `embed_order`, and tokens of its tile.
const ORDER: usize = 256;

/// Computes y_t = table[ids_t − first], or 0.
pub fn forward(cuda: &Cuda, y: &mut Tensor, table: &Tensor, ids: &Tensor, rows: RowShard) -> Result<()> {
    let ((v, c), e) = (table.shape().as_matrix(), y.dtype());
    let grid = Grid::new(ids.shape().elements(), row_threads(c, pack(table.dtype(), e, c)));
    let args = &mut [
        Arg::Out(y),
        Arg::In(table),
        Arg::In(ids),
        Arg::I32(rows.first as i32),
        Arg::I32(rows.total as i32),
        Arg::I32(v as i32),
        Arg::I32(c as i32),
    ];
    start(cuda, "embed", (table.dtype(), e, c), grid, args)
}

/// Computes dtable_v = Σ dy_t over the tokens of first + v, ascending. `order` becomes the tokens sorted by id,
/// then by place.
pub fn backward(
    cuda: &Cuda,
    dtable: &mut Tensor,
    order: &mut Tensor,
    dy: &Tensor,
    ids: &Tensor,
    first: usize,
) -> Result<()> {
    let (t, (v, c)) = (ids.shape().elements(), dtable.shape().as_matrix());
    let types = (dtable.dtype(), dy.dtype(), c);
    let args = &mut [Arg::Out(order), Arg::In(ids), Arg::I32(t as i32)];
    start(cuda, "embed_order", types, Grid::new(t.div_ceil(ORDER), ORDER), args)?;
    let grid = Grid::new(v, row_threads(c, pack(types.0, types.1, c)));
    let args = &mut [
        Arg::Out(dtable),
        Arg::In(dy),
        Arg::In(order),
        Arg::In(ids),
        Arg::I32(first as i32),
        Arg::I32(t as i32),
        Arg::I32(c as i32),
    ];
    start(cuda, "embed_backward", types, grid, args)
}

/// Defines W, the table's type, E, the embeddings' type, and VEC.
const fn variant(w: DType, e: DType, vec: usize) -> Variant {
    Variant::PLAIN.dtype("W", w).dtype("E", e).int("VEC", vec)
}

/// Returns the elements of one access: 16 bytes of the wider type.
fn pack(w: DType, e: DType, columns: usize) -> usize {
    access_width(w, columns).min(access_width(e, columns))
}

fn start(
    cuda: &Cuda,
    kernel: &str,
    (w, e, columns): (DType, DType, usize),
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, variant(w, e, pack(w, e, columns)), kernel)?;
    // SAFETY: the op has checked the shapes; ids are checked by the kernel, and `order` holds tokens.
    unsafe { kernel.launch(grid, args) }
}
