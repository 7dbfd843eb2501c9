//! Paged attention: new rows attend to the KV pages of their sequences, which are read in place (PagedAttention,
//! Kwon et al., arXiv 2309.06180). Inference only.

use super::Heads;
use super::cpu::{self, KvSource, RowTile};
use super::cuda;
use crate::simd::Storage;
use codelsi_engine::op_times::Pass;
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use half::bf16;

/// Sequence, position and block tables of the rows of a batch, all in device memory.
#[derive(Clone, Copy)]
pub struct PagedBatch<'a> {
    /// (T) i32: index of the row's sequence.
    pub sequences: &'a Tensor,
    /// (T) i32: position of the row in its sequence; its own key and value are in the pages already.
    pub positions: &'a Tensor,
    /// (S, M) i32: block table of each sequence, its pages in order.
    pub block_tables: &'a Tensor,
}

/// Allocates the counters by which a GPU's blocks find the last of them that works on a row, i32, all 0: every call of
/// [`flash_paged`] leaves them so, which a recorded step needs.
pub fn arrivals(device: &Device, sequences: usize, heads: Heads) -> Tensor {
    device.zeros(Label::Kv, [sequences, cuda::blocks_of_row(heads)], DType::I32)
}

/// Returns o (T, H·D) of q (T, H·D) over `k_pages` and `v_pages` (N, K, page, D); `arrivals` are those of at least S
/// sequences.
///
/// # Errors
/// When shapes do not fit, a block table names a page that does not exist, or an input wants a gradient.
pub fn flash_paged(
    cx: &Ctx,
    q: &Tensor,
    [k_pages, v_pages]: [&Tensor; 2],
    rows: PagedBatch,
    arrivals: &mut Tensor,
    heads: Heads,
) -> Result<Tensor> {
    let run = || {
        check(cx, q, [k_pages, v_pages], rows, arrivals, heads)?;
        let mut o = cx.empty(*q.shape(), q.dtype());
        match cx.device() {
            Device::Cpu(_) => on_cpu(&mut o, [q, k_pages, v_pages], rows, heads)?,
            Device::Cuda(cuda) => {
                cuda::paged(cx, cuda, &mut o, [q, k_pages, v_pages], rows, arrivals, heads)?
            }
            Device::Plan(_) => cuda::plan_paged(cx, q, k_pages, rows, heads),
        }
        Ok(o)
    };
    cx.timed("flash", Pass::Forward, run).at("flash")
}

fn check(
    cx: &Ctx,
    q: &Tensor,
    [k_pages, v_pages]: [&Tensor; 2],
    rows: PagedBatch,
    arrivals: &Tensor,
    heads: Heads,
) -> Result<()> {
    if cx.records(&[q, k_pages, v_pages]) {
        return Err(Error::new("has no backward, and an input wants a gradient"));
    }
    let fits = matches!(k_pages.shape()[..], [_, k, _, d] if k == heads.kv_heads && d == heads.head_dim)
        && k_pages.shape() == v_pages.shape()
        && k_pages.dtype() == q.dtype()
        && q.shape().as_matrix().1 == heads.heads * heads.head_dim;
    if !fits {
        let message = format!("q is {q:?}, pages are {k_pages:?}: they do not fit {heads:?}");
        return Err(Error::new(message));
    }
    match arrivals.shape().elements() < rows.block_tables.shape()[0] * cuda::blocks_of_row(heads) {
        true => Err(Error::new(format!("arrivals {arrivals:?} are too few for {:?}", rows.block_tables))),
        false => Ok(()),
    }
}

fn on_cpu(o: &mut Tensor, [q, k, v]: [&Tensor; 3], rows: PagedBatch, heads: Heads) -> Result<()> {
    let tiles = tiles_of_runs(
        rows.sequences.slice()?,
        rows.positions.slice()?,
        cpu::rows_of_task(q.shape()[0], heads),
    );
    let (tables, pages_per_table) = (rows.block_tables.slice()?, rows.block_tables.shape()[1]);
    let pages = KvPages { k, v, tables, pages_per_table };
    pages.check(&tiles)?;
    match q.dtype() {
        DType::BF16 => pages.forward::<bf16>(o.slice_mut()?, q, &tiles, heads),
        _ => pages.forward::<f32>(o.slice_mut()?, q, &tiles, heads),
    }
}

/// Groups rows of one sequence at consecutive positions into tiles, which end at multiples of `height` positions.
fn tiles_of_runs(sequences: &[i32], positions: &[i32], height: usize) -> Vec<RowTile> {
    let mut tiles: Vec<RowTile> = Vec::new();
    for (row, (&sequence, &position)) in sequences.iter().zip(positions).enumerate() {
        let (document, position) = (sequence as usize, position as usize);
        match tiles.last_mut() {
            Some(b)
                if b.document == document
                    && b.position + b.rows == position
                    && !position.is_multiple_of(height) =>
            {
                b.rows += 1;
            }
            _ => tiles.push(RowTile { row, rows: 1, position, document, start: 0, end: 0 }),
        }
    }
    tiles
}

struct KvPages<'a> {
    /// (N, K, page, D).
    k: &'a Tensor,
    /// (N, K, page, D).
    v: &'a Tensor,
    /// (S, `pages_per_table`): block tables.
    tables: &'a [i32],
    pages_per_table: usize,
}

impl KvPages<'_> {
    fn page_size(&self) -> usize {
        self.k.shape()[2]
    }

    /// Checks that every page that the tiles read exists.
    fn check(&self, tiles: &[RowTile]) -> Result<()> {
        let pages = self.k.shape()[0];
        for b in tiles {
            let needed = (b.position + b.rows).div_ceil(self.page_size());
            let table =
                self.tables.get(b.document * self.pages_per_table..(b.document + 1) * self.pages_per_table);
            let known = table.and_then(|t| t.get(..needed));
            if known.is_none_or(|t| t.iter().any(|&page| page < 0 || page as usize >= pages)) {
                let last = b.position + b.rows - 1;
                let message =
                    format!("the block table of sequence {} does not cover positions 0..={last}", b.document);
                return Err(Error::new(message));
            }
        }
        Ok(())
    }

    fn forward<T: Storage>(&self, o: &mut [T], q: &Tensor, tiles: &[RowTile], heads: Heads) -> Result<()> {
        let (k, v, page_size) = (self.k.slice::<T>()?, self.v.slice::<T>()?, self.page_size());
        cpu::forward_tiles(o, None, heads, q.slice::<T>()?, tiles, |row_tile, kv_head, attend| {
            let table = &self.tables[row_tile.document * self.pages_per_table..];
            let row = |position: usize| {
                let page = table[position / page_size] as usize;
                (page * heads.kv_heads + kv_head) * page_size + position % page_size
            };
            attend(KvSource { k, v, row: &row, stride: None });
        });
        Ok(())
    }
}
