//! Parts that fused losses over a language model's head share on a GPU: the labelled tokens of a batch, gathered in chunks, and
//! tiles of their logits.

use crate::cuda::{PRELUDE, access_width, all_packed, packed, row_threads};
use crate::gemm::cuda::{OperandLayout, RowSlice, multiply};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source};
use codelsi_engine::{Ctx, DType, Result, Tensor};
use std::ops::Range;

/// The steps around a loss's own kernels.
pub static SOURCE: Source = Source {
    name: "labelled.cu",
    text: include_str!("../labelled.cu"),
    headers: crate::cuda::HEADERS,
    constants: &[Define::int("THREADS", THREADS)],
    variants: all_packed,
};

/// The headers of a source whose blocks hold rows of a tile; it defines [`THREADS`] and [`PACKS`].
pub const HEADERS: &[(&str, &str)] = &[PRELUDE, ("logit_tile.cuh", include_str!("../logit_tile.cuh"))];

/// Rows of a tile of the products.
const PRODUCT_ROWS: usize = 128;
/// Labelled tokens of a chunk at the least, and where sums over tokens depend on where chunks end.
pub const FEWEST: usize = 1024;
/// Rows of the head of a tile: a block holds one token's logits of a tile in registers.
pub const TILE: usize = THREADS * PACKS * 4;
/// Threads of a block that holds a row of a tile.
pub const THREADS: usize = 256;
/// Packs of four logits that a thread holds.
pub const PACKS: usize = 4;
/// Threads of the one block that lists the labelled tokens.
const LISTING: usize = 1024;

/// The tokens of `h` (T, C) that have a label in `targets` (T).
pub struct LabelledTokens<'a> {
    pub cx: &'a Ctx,
    pub cuda: &'a Cuda,
    pub h: &'a Tensor,
    pub targets: &'a Tensor,
}

impl LabelledTokens<'_> {
    /// Returns their indices, ascending, in the first `count` elements of (T) i32. A target outside the vocabulary of
    /// `vocab` stops the kernel, and so does another number of them than `count`.
    pub fn list(&self, vocab: usize, count: usize) -> Result<Tensor> {
        let t = self.sizes().0;
        let mut rows = self.cx.scratch([t], DType::I32);
        let args = &mut [Arg::InOut(&mut rows), Arg::In(self.targets), int(t), int(vocab), int(count)];
        self.start("labelled_select", Grid::new(1, LISTING), args)?;
        Ok(rows)
    }

    /// Writes 0 to `values` (T) and `dh` (T, C) of the tokens without a label.
    pub fn clear_others(&self, dh: Option<&mut Tensor>, values: &mut Tensor) -> Result<()> {
        let (t, c) = self.sizes();
        let args = &mut [Arg::MaybeInOut(dh), Arg::InOut(values), Arg::In(self.targets), int(c)];
        self.start("labelled_clear", self.row_grid(t), args)
    }

    /// Copies rows of `of`, shaped like h, to `x` (n, C): those of the chunk `tokens` of the list `rows`.
    pub fn gather(&self, x: &mut Tensor, of: &Tensor, rows: &Tensor, tokens: &Range<usize>) -> Result<()> {
        let args = &mut [Arg::InOut(x), Arg::In(of), Arg::In(rows), int(tokens.start), int(self.sizes().1)];
        self.start("labelled_gather", self.row_grid(tokens.len()), args)
    }

    /// Computes loss = `factor` · Σ `values` (T).
    pub fn sum(&self, loss: &mut Tensor, values: &Tensor, factor: f32) -> Result<()> {
        let args = &mut [Arg::Out(loss), Arg::In(values), Arg::F32(factor), int(self.sizes().0)];
        self.start("labelled_sum", Grid::new(1, THREADS), args)
    }

    /// Returns a grid of one block per row of C elements.
    pub fn row_grid(&self, rows: usize) -> Grid {
        Grid::new(rows, row_threads(self.sizes().1, self.vec()))
    }

    /// Elements of a row of C that one access moves.
    pub fn vec(&self) -> usize {
        access_width(self.h.dtype(), self.sizes().1)
    }

    /// T and C.
    fn sizes(&self) -> (usize, usize) {
        self.h.shape().as_matrix()
    }

    fn start(&self, kernel: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
        let kernel = self.cuda.kernel(&SOURCE, packed(self.h.dtype(), self.vec()), kernel)?;
        // SAFETY: the op has checked the shapes, targets are checked by the first kernel, and listed tokens are below T.
        unsafe { kernel.launch(grid, args) }
    }
}

/// Returns the labelled tokens of a chunk: 128 for every fourth multiprocessor. A tile of logits then is a whole number of
/// waves of 128x256 tiles (16 along its 4,096 columns), and so is its product with a head of 5,120 channels (20).
pub fn chunk_rows(multiprocessors: usize) -> usize {
    FEWEST.max(PRODUCT_ROWS * (multiprocessors / 4))
}

/// Returns the tiles of a head of `vocab` rows, in order.
pub fn tiles(vocab: usize) -> impl Iterator<Item = Range<usize>> {
    (0..vocab).step_by(TILE).map(move |start| start..vocab.min(start + TILE))
}

/// Returns the rows of a tile of the head.
pub fn head_rows<'a>(head: &'a Tensor, tile: &Range<usize>) -> RowSlice<'a> {
    RowSlice { t: head, first: tile.start, rows: tile.len() }
}

/// Computes the logits z (n, tile) = x · head_tileᵀ of the first `n` rows of x.
pub fn logits(
    cx: &Ctx,
    cuda: &Cuda,
    z: &mut Tensor,
    (x, n): (&Tensor, usize),
    (head, tile): (&Tensor, &Range<usize>),
) -> Result<()> {
    let x = RowSlice { t: x, first: 0, rows: n };
    multiply(cx, cuda, z, (0, n), false, OperandLayout::NT, [x, head_rows(head, tile)])
}

fn int<'a>(n: usize) -> Arg<'a> {
    Arg::I32(n as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both products of a chunk fill the multiprocessors of an A100 (108) and of an H200 (132) to the last wave, and nearly
    /// those of an H100 PCIe (114).
    #[test]
    fn a_chunk_is_whole_waves() {
        let shares = |multiprocessors: usize| {
            let rows = chunk_rows(multiprocessors).div_ceil(PRODUCT_ROWS);
            [TILE, 5120].map(|columns| {
                let tiles = rows * columns.div_ceil(256);
                tiles as f64 / (tiles.div_ceil(multiprocessors) * multiprocessors) as f64
            })
        };
        assert_eq!([108, 132].map(shares), [[1.0; 2]; 2]);
        assert!(shares(114).iter().all(|&share| share > 0.97), "{:?}", shares(114));
        assert_eq!(chunk_rows(1), FEWEST);
    }
}
