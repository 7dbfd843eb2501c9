//! The CPU twin, blocked as in BLIS: C is cut into blocks of MC by NC, one task each; a task packs its panels of A and
//! B (`pack`) and runs micro-kernels on them (`micro`).

mod micro;
pub mod pack;
mod skinny;
mod transpose;

pub use pack::{Elements, Matrix, Precision};

use crate::disjoint::DisjointSlice;
use crate::simd::{Storage, level, vectorize};
use micro::{KC_WORDS, MicroKernels, NR};
use pack::PackWindow;
use rayon::prelude::*;
use std::cell::RefCell;

/// Rows of a block of C: the packed rows of A stay in the L2 cache.
const MC: usize = 252;
/// Columns of a block of C, at most.
const NC: usize = 512;

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

/// Computes `c (M, N) = start + Σ a · b`, one term after the other, k ascending inside each.
///
/// The bits of an element depend only on its row of A, its column of B and the order of the terms.
pub fn multiply<T: Storage>(
    c: &mut [T],
    (m, n): (usize, usize),
    start: AccumulatorInit,
    terms: &[ProductTerm],
    precision: Precision,
) {
    let rows = MC.min(m.max(1));
    let row_blocks = m.div_ceil(rows);
    // Enough blocks for every thread to share the work, as wide as that allows.
    let target_blocks = (4 * rayon::current_num_threads()).div_ceil(row_blocks.max(1));
    let columns = n.div_ceil(target_blocks).next_multiple_of(NR).clamp(NR, NC);
    let column_blocks = n.div_ceil(columns);
    assert!(c.len() >= m * n, "C ({m}, {n}) does not fit its slice");
    let out = DisjointSlice::new(c);
    (0..row_blocks * column_blocks).into_par_iter().for_each(|i| {
        let (r, j) = (i % row_blocks * rows, i / row_blocks * columns);
        let (height, width) = (rows.min(m - r), columns.min(n - j));
        with_block(height, width, |block, stride| {
            if let AccumulatorInit::From(from) = start {
                for (row, block) in block.chunks_exact_mut(stride).enumerate() {
                    block[..width].copy_from_slice(&from[(r + row) * n + j..][..width]);
                }
            }
            accumulate(block, stride, (r, height), (j, width), terms, precision);
            for (row, block) in block.chunks_exact(stride).enumerate() {
                // SAFETY: blocks of C do not overlap, and each belongs to one task.
                let c = unsafe { out.slice((r + row) * n + j, width) };
                vectorize(
                    #[inline(always)]
                    || c.iter_mut().zip(block).for_each(|(c, &x)| *c = T::put(x)),
                );
            }
        });
    });
}

/// Calls `f` with a zeroed f32 block of `height` by `width` (rows `stride` apart) that the thread keeps for reuse.
fn with_block(height: usize, width: usize, f: impl FnOnce(&mut [f32], usize)) {
    thread_local! {
        static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    let stride = width.next_multiple_of(NR);
    let mut block = BLOCK.take();
    block.clear();
    block.resize(height * stride, 0.0);
    f(&mut block, stride);
    BLOCK.set(block);
}

/// Computes `c += Σ a · b` for rows `r..r+height` and columns `j..j+width` of the product, on the calling thread.
///
/// `c` has rows of `stride` values, a multiple of 32 that is at least `width`; the columns from `width` to
/// `stride` are scratch.
pub(crate) fn accumulate(
    c: &mut [f32],
    stride: usize,
    (r, height): (usize, usize),
    (j, width): (usize, usize),
    terms: &[ProductTerm],
    precision: Precision,
) {
    thread_local! {
        static PACKED: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    }
    assert!(c.len() >= height * stride && stride.is_multiple_of(NR) && width <= stride);
    let (format, kernels) = (precision.format(), MicroKernels::select(level(), precision.format()));
    let (mut a, mut b) = PACKED.take();
    // As many k blocks of A as fit are packed at once: a skinny kernel then reads each row of B from end to end.
    let k_block = height * KC_WORDS;
    let k_blocks = (MC / height.max(1)).max(1);
    a.resize(a.len().max(k_block * k_blocks), 0);
    b.resize(KC_WORDS * NR, 0);
    for &ProductTerm { a: a_operand, b: b_operand, depth } in terms {
        let skinny_kernel = skinny::select(height, &b_operand, precision);
        let windows: Vec<PackWindow> = (0..depth)
            .step_by(KC_WORDS * pack::k_per_word(format))
            .map(|k| PackWindow {
                outer: r,
                count: height,
                k,
                steps: (depth - k).div_ceil(pack::k_per_word(format)).min(KC_WORDS),
                depth,
            })
            .collect();
        for windows in windows.chunks(k_blocks) {
            for (w, a) in windows.iter().zip(a.chunks_exact_mut(k_block)) {
                pack::pack_a(a, &a_operand, *w, precision);
            }
            let mut panels = windows.to_vec();
            for column in (0..width).step_by(NR) {
                for w in &mut panels {
                    (w.outer, w.count) = (j + column, NR.min(width - column));
                }
                let c = c[column..].as_mut_ptr();
                if let Some(multiply) = skinny_kernel {
                    // SAFETY: `a` is (windows, height, KC_WORDS), `c` was checked above; the kernel was selected for
                    // this machine.
                    unsafe { multiply(c, stride, a.as_ptr(), &b_operand, &panels) };
                    continue;
                }
                for (w, a) in panels.iter().zip(a.chunks_exact(k_block)) {
                    pack::pack_b(&mut b, &b_operand, *w, precision);
                    // SAFETY: `a` is (height, KC_WORDS), `b` (steps, NR), `c` was checked above; the kernels were
                    // selected for this machine.
                    unsafe { kernels.multiply(height, w.steps, a.as_ptr(), b.as_ptr(), c, stride) };
                }
            }
        }
    }
    PACKED.set((a, b));
}
