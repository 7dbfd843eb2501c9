//! The CPU twin, blocked as in BLIS: C is cut into blocks of rows and columns, one task each; a task packs its panels of
//! A and B (`pack`), unless the weight keeps its own (`panels`), and runs micro-kernels on them (`micro`).

mod lanes;
mod micro;
pub mod pack;
pub mod panels;
mod skinny;
mod transpose;

pub use pack::{Elements, Matrix, Precision};

use crate::aligned::AlignedVec;
use crate::disjoint::DisjointSlice;
use crate::simd::{Storage, level, vectorize};
use codelsi_engine::team::{self, ForEachOnTeam};
use micro::{KC_WORDS, MicroKernels, NR};
use pack::PackWindow;
use panels::Panels;
use rayon::prelude::*;
use skinny::SkinnyKernel;
use std::cell::RefCell;

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
        let columns = n.div_ceil(wanted.div_ceil(row_blocks)).next_multiple_of(NR).clamp(NR, NC);
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
        with_block(height, width, |block, stride| {
            if let AccumulatorInit::From(from) = self.start {
                for (row, block) in block.chunks_exact_mut(stride).enumerate() {
                    block[..width].copy_from_slice(&from[(r + row) * n + j..][..width]);
                }
            }
            accumulate(block, stride, (r, height), (j, width), self.terms, precision);
            for (row, block) in block.chunks_exact(stride).enumerate() {
                // SAFETY: blocks of C do not overlap, and each belongs to one task.
                let c = unsafe { self.c.slice((r + row) * n + j, width) };
                vectorize(
                    #[inline(always)]
                    || c.iter_mut().zip(block).for_each(|(c, &x)| *c = T::put(x)),
                );
            }
        });
    }
}

/// Calls `f` with a zeroed f32 block of `height` by `width` (rows `stride` apart) that the thread keeps for reuse.
fn with_block(height: usize, width: usize, f: impl FnOnce(&mut [f32], usize)) {
    thread_local! {
        static BLOCK: RefCell<AlignedVec<f32>> = RefCell::default();
    }
    let stride = width.next_multiple_of(NR);
    let mut block = BLOCK.take();
    block.resize(height * stride);
    block.fill(0.0);
    f(&mut block, stride);
    BLOCK.set(block);
}

/// Computes `c += Σ a · b` for rows `r..r+height` and columns `j..j+width` of the product, on the calling thread.
///
/// `c` has rows of `stride` values, a multiple of 32 that is at least `width`; the columns from `width` to
/// `stride` are scratch. `j` is a multiple of 32.
pub(crate) fn accumulate(
    c: &mut [f32],
    stride: usize,
    (r, height): (usize, usize),
    (j, width): (usize, usize),
    terms: &[ProductTerm],
    precision: Precision,
) {
    thread_local! {
        static PACKED: RefCell<(AlignedVec<u32>, AlignedVec<u32>)> = RefCell::default();
    }
    assert!(c.len() >= height * stride && stride.is_multiple_of(NR) && width <= stride);
    let format = precision.format();
    let (mut a, mut b) = PACKED.take();
    // As many k blocks of A as fit are packed at once: few rows then read each panel of B from end to end.
    let k_block = height * KC_WORDS;
    b.resize(KC_WORDS * NR);
    for term in terms {
        let words = term.depth.div_ceil(format.k_per_word());
        let k_blocks = (MC / height.max(1)).clamp(1, words.div_ceil(KC_WORDS).max(1));
        a.resize(k_block * k_blocks);
        let source = PanelSource::new(term.b, height, precision);
        for step in (0..words).step_by(KC_WORDS * k_blocks) {
            let steps = (words - step).min(KC_WORDS * k_blocks);
            let k = step * format.k_per_word();
            let rows = PackWindow { outer: r, count: height, k, steps, depth: term.depth };
            for (w, a) in rows.blocks(format).zip(a.chunks_exact_mut(k_block.max(1))) {
                pack::pack_a(a, &term.a, w, precision);
            }
            for column in (0..width).step_by(NR) {
                let w = PackWindow { outer: j + column, count: NR.min(width - column), ..rows };
                // SAFETY: `a` holds the blocks of `rows`, `c` was checked above.
                unsafe { source.multiply(height, &a, &mut b, w, c[column..].as_mut_ptr(), stride) };
            }
        }
    }
    PACKED.set((a, b));
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

    /// Computes `c += a · b` over a window of at most [`NR`] columns of B; `scratch` has room for a block of a panel.
    ///
    /// # Safety
    /// `a` holds `rows` rows of [`KC_WORDS`] words for each block of the window, `c` holds `rows` rows of [`NR`] values,
    /// `ldc` apart.
    unsafe fn multiply(
        &self,
        rows: usize,
        a: &[u32],
        scratch: &mut [u32],
        w: PackWindow,
        c: *mut f32,
        ldc: usize,
    ) {
        let format = self.precision.format();
        if let PanelWay::Skinny(multiply) = self.way {
            // SAFETY: guaranteed by the caller; the kernel was selected for this machine and these rows.
            return unsafe { multiply(c, ldc, a.as_ptr(), &self.b, w) };
        }
        let packed = MicroKernels::select(level(), format, format);
        for (w, a) in w.blocks(format).zip(a.chunks_exact(rows * KC_WORDS)) {
            let (kernels, steps, panel) = match &self.way {
                PanelWay::Kept(panels, kernels) => {
                    let steps = w.steps * format.k_per_word() / panels.format().k_per_word();
                    (*kernels, steps, &panels.from(w)[..steps * NR])
                }
                PanelWay::Widened(panels) => {
                    panels::widen(&mut scratch[..w.steps * NR], panels.from(w));
                    (packed, w.steps, &scratch[..])
                }
                PanelWay::Skinny(_) | PanelWay::Packed => {
                    pack::pack_b(scratch, &self.b, w, self.precision, format);
                    (packed, w.steps, &scratch[..])
                }
            };
            // SAFETY: guaranteed by the caller; the panel has `steps` rows of words, and the kernels were selected for
            // this machine.
            unsafe { kernels.multiply(rows, steps, a.as_ptr(), panel.as_ptr(), c, ldc) };
        }
    }
}
