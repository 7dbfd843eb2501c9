//! The CPU twin, blocked as in BLIS: C is cut into blocks of rows and columns, one task each; a task packs its panels of
//! A and B (`pack`), unless the weight keeps its own (`panels`), and runs micro-kernels on them (`micro`).

mod across;
mod lanes;
mod micro;
pub mod pack;
pub mod packed_rows;
pub mod panels;
mod skinny;
mod transpose;

pub(crate) use micro::{NR, Start};
pub use pack::{Elements, Matrix, Precision};

use crate::aligned::AlignedVec;
use crate::disjoint::DisjointSlice;
use crate::simd::{Storage, level, vectorize};
use codelsi_engine::team::{self, ForEachOnTeam};
use micro::{KC_WORDS, MicroKernels, OutputTile};
use pack::PackWindow;
use panels::Panels;
use rayon::prelude::*;
use skinny::SkinnyKernel;

/// Rows of a block of C, at most: the packed rows of A stay in the L2 cache, and a sequence of 512 tokens is one block, so
/// that each panel of B is packed once.
const MC: usize = 516;
/// Rows of a block of C, at least, where rows are cut because columns are few.
const MIN_ROWS: usize = 48;
/// Columns of a block of C, at most.
const NC: usize = 512;
/// Blocks of C for each thread: a thread that is late leaves blocks to the others.
const BLOCKS_PER_THREAD: usize = 4;

/// One term `A (M, depth) · B (depth, N)` of a sum of products that share their accumulators.
#[derive(Clone, Copy)]
pub struct ProductTerm<'a> {
    pub a: Matrix<'a>,
    pub b: Matrix<'a>,
    pub depth: usize,
}

/// Initial value of the accumulators.
#[derive(Clone, Copy)]
pub enum AccumulatorInit<'a> {
    Zero,
    /// An f32 matrix `(M, N)`.
    From(&'a [f32]),
}

/// A sum of products to compute: `c (M, N) = start + Σ a · b`, one term after the other, k ascending inside each.
pub struct Product<'a, T> {
    pub c: &'a mut [T],
    /// M and N.
    pub size: (usize, usize),
    pub start: AccumulatorInit<'a>,
    pub terms: &'a [ProductTerm<'a>],
}

/// Computes one product.
///
/// The bits of an element depend only on its row of A, its column of B and the order of the terms.
pub fn multiply<T: Storage>(
    c: &mut [T],
    size: (usize, usize),
    start: AccumulatorInit,
    terms: &[ProductTerm],
    precision: Precision,
) {
    multiply_all([Product { c, size, start, terms }], precision);
}

/// Computes several products at once: all their blocks are shared among the threads, which meet once.
pub fn multiply_all<'a, T: Storage>(
    products: impl IntoIterator<Item = Product<'a, T>>,
    precision: Precision,
) {
    let mut products: Vec<Product<T>> = products.into_iter().collect();
    let wanted = BLOCKS_PER_THREAD * team::threads();
    let all_columns: usize = products.iter().map(|p| p.size.1).sum();
    let mut blocks = 0;
    let tasks: Vec<BlockedProduct<T>> = products
        .iter_mut()
        .map(|p| {
            let share = (wanted * p.size.1).div_ceil(all_columns.max(1)).max(1);
            let task = BlockedProduct::new(p, share, blocks);
            blocks = task.end();
            task
        })
        .collect();
    (0..blocks).into_par_iter().for_each_on_team(|i| {
        let task = tasks.iter().find(|task| i < task.end()).expect("blocks were counted");
        task.compute(i - task.first, precision);
    });
}

/// A product cut into blocks.
struct BlockedProduct<'a, T> {
    c: DisjointSlice<'a, T>,
    size: (usize, usize),
    start: AccumulatorInit<'a>,
    terms: &'a [ProductTerm<'a>],
    /// Rows and columns of a block.
    block: (usize, usize),
    /// Number of blocks along rows and columns.
    grid: (usize, usize),
    /// Index of the first block.
    first: usize,
}

impl<'a, T: Storage> BlockedProduct<'a, T> {
    /// Cuts a product into about `wanted` blocks, as wide as that allows: the rows of A are packed for each of them.
    fn new(p: &'a mut Product<T>, wanted: usize, first: usize) -> Self {
        let (m, n) = p.size;
        assert!(p.c.len() >= m * n, "C ({m}, {n}) does not fit its slice");
        let row_blocks = m.div_ceil(MC).max(1);
        // Where nothing of A is packed for a block, it is so narrow that its sums stay in the L1 cache until they are stored.
        let is_packed = p.terms.iter().all(|term| term.a.rows.is_some());
        let most = if is_packed && m >= MIN_ROWS { NR } else { NC };
        let columns = n.div_ceil(wanted.div_ceil(row_blocks)).next_multiple_of(NR).clamp(NR, most);
        let column_blocks = n.div_ceil(columns);
        // Where a few columns leave threads without work, rows are cut instead.
        let row_blocks = row_blocks.max(wanted.div_ceil(column_blocks.max(1)).min(m / MIN_ROWS));
        let rows = m.div_ceil(row_blocks).max(1);
        BlockedProduct {
            c: DisjointSlice::new(p.c),
            size: p.size,
            start: p.start,
            terms: p.terms,
            block: (rows, columns),
            grid: (m.div_ceil(rows), column_blocks),
            first,
        }
    }

    /// Index after the last block.
    fn end(&self) -> usize {
        self.first + self.grid.0 * self.grid.1
    }

    /// Computes block `i` on the calling thread.
    fn compute(&self, i: usize, precision: Precision) {
        let ((m, n), (rows, columns)) = (self.size, self.block);
        let (r, j) = (i % self.grid.0 * rows, i / self.grid.0 * columns);
        let (height, width) = (rows.min(m - r), columns.min(n - j));
        let stride = width.next_multiple_of(NR);
        let mut block = AlignedVec::scratch(height * stride);
        let start = match self.start {
            AccumulatorInit::Zero => Start::Zero,
            AccumulatorInit::From(from) => {
                for (row, block) in block.chunks_exact_mut(stride).enumerate() {
                    block[..width].copy_from_slice(&from[(r + row) * n + j..][..width]);
                }
                Start::C
            }
        };
        multiply_block((&mut block, stride, start), (r, height), (j, width), self.terms, precision);
        vectorize(
            #[inline(always)]
            || {
                for (row, block) in block.chunks_exact(stride).enumerate() {
                    // SAFETY: blocks of C do not overlap, and each belongs to one task.
                    let c = unsafe { self.c.slice((r + row) * n + j, width) };
                    round_row(c, block);
                }
            },
        );
    }
}

/// Stores c = x, rounded to the storage type of c; x may be longer.
#[inline(always)]
pub(crate) fn round_row<T: Storage>(c: &mut [T], x: &[f32]) {
    c.iter_mut().zip(x).for_each(|(c, &x)| *c = T::put(x));
}

/// Computes `c = start + Σ a · b` for rows `r..r+height` and columns `j..j+width` of the product, on the calling thread.
///
/// `c` has rows of `stride` values, a multiple of 32 that is at least `width`; the columns from `width` to
/// `stride` are scratch. `j` is a multiple of 32.
pub(crate) fn multiply_block(
    (c, stride, mut start): (&mut [f32], usize, Start),
    (r, height): (usize, usize),
    (j, width): (usize, usize),
    terms: &[ProductTerm],
    precision: Precision,
) {
    assert!(c.len() >= height * stride && stride.is_multiple_of(NR) && width <= stride);
    let format = precision.format();
    // As many k blocks of A as fit are packed at once: few rows then read each panel of B from end to end.
    let k_blocks = (MC / height.max(1)).max(1);
    let mut packed_a = AlignedVec::scratch(0);
    let mut panel = AlignedVec::scratch(0);
    for term in terms {
        let words = term.depth.div_ceil(format.k_per_word());
        let source = PanelSource::new(term.b, height, precision);
        for step in (0..words).step_by(KC_WORDS * k_blocks) {
            let steps = (words - step).min(KC_WORDS * k_blocks);
            let k = step * format.k_per_word();
            let rows = PackWindow { outer: r, count: height, k, steps, depth: term.depth };
            let blocks = steps.div_ceil(KC_WORDS);
            let a = match &term.a.rows {
                Some(packed) => (packed.from((step / KC_WORDS, blocks), (r, height)), packed.block_len()),
                None => {
                    let block = height * KC_WORDS;
                    packed_a.resize(block * blocks);
                    for (w, a) in rows.blocks(format).zip(packed_a.chunks_exact_mut(block.max(1))) {
                        pack::pack_a(a, &term.a, w, precision);
                    }
                    (&packed_a[..], block)
                }
            };
            for column in (0..width).step_by(NR) {
                let w = PackWindow { outer: j + column, count: NR.min(width - column), ..rows };
                let c = OutputTile { first: c[column..].as_mut_ptr(), stride, start };
                // SAFETY: `a` holds the blocks of `rows`, as was checked or packed; `c` was checked above.
                unsafe { source.multiply(height, a, &mut panel, w, c) };
            }
            start = Start::C;
        }
    }
    if start == Start::Zero {
        c.fill(0.0);
    }
}

/// Source of the words of B's panels, and the kernel that multiplies them.
struct PanelSource<'a> {
    b: Matrix<'a>,
    precision: Precision,
    way: PanelWay<'a>,
}

enum PanelWay<'a> {
    /// They are kept in the format that the micro-kernels read.
    Kept(Panels<'a>, &'static MicroKernels),
    /// They are kept as pairs, and widened once for many rows.
    Widened(Panels<'a>),
    /// B is transposed in registers.
    Skinny(SkinnyKernel),
    /// They are packed.
    Packed,
}

impl<'a> PanelSource<'a> {
    fn new(b: Matrix<'a>, rows: usize, precision: Precision) -> Self {
        let way = match b.panels.filter(|panels| panels.serve(precision)) {
            Some(panels) => {
                let kernels = MicroKernels::select(level(), precision.format(), panels.format());
                match rows <= kernels.max_rows() || panels.format() == precision.format() {
                    true => PanelWay::Kept(panels, kernels),
                    false => PanelWay::Widened(panels),
                }
            }
            None => skinny::select(rows, &b, precision).map_or(PanelWay::Packed, PanelWay::Skinny),
        };
        PanelSource { b, precision, way }
    }

    /// Computes `c = start + a · b` over a window of at most [`NR`] columns of B; `scratch` is for a block of a panel.
    ///
    /// # Safety
    /// `a` holds `rows` rows of [`KC_WORDS`] words for each block of the window, as far apart as it says; `c` holds `rows`
    /// rows of [`NR`] values.
    unsafe fn multiply(
        &self,
        rows: usize,
        (a, a_block): (&[u32], usize),
        scratch: &mut AlignedVec<u32>,
        w: PackWindow,
        mut c: OutputTile,
    ) {
        let format = self.precision.format();
        if let PanelWay::Skinny(multiply) = self.way {
            // SAFETY: guaranteed by the caller; the kernel was selected for this machine and these rows.
            return unsafe { multiply(c, a.as_ptr(), a_block, &self.b, w) };
        }
        let packed = MicroKernels::select(level(), format, format);
        for (w, a) in w.blocks(format).zip(a.chunks(a_block.max(1))) {
            let (kernels, steps, panel) = match &self.way {
                PanelWay::Kept(panels, kernels) => {
                    let steps = w.steps * format.k_per_word() / panels.format().k_per_word();
                    (*kernels, steps, &panels.from(w)[..steps * NR])
                }
                PanelWay::Widened(panels) => {
                    scratch.resize(w.steps * NR);
                    panels::widen(scratch, panels.from(w));
                    (packed, w.steps, &scratch[..])
                }
                PanelWay::Skinny(_) | PanelWay::Packed => {
                    scratch.resize(w.steps * NR);
                    pack::pack_b(scratch, &self.b, w, self.precision, format);
                    (packed, w.steps, &scratch[..])
                }
            };
            // SAFETY: guaranteed by the caller; the panel has `steps` rows of words, and the kernels were selected for
            // this machine.
            unsafe { kernels.multiply((rows, w.count), steps, a.as_ptr(), panel.as_ptr(), c) };
            c.start = Start::C;
        }
    }
}
