//! The CPU twin: C is cut into blocks, one task each; a task packs what it multiplies.

mod block;
mod few;
mod micro;
pub mod pack;

pub use pack::{Data, Operand, Precision};

use crate::disjoint::Disjoint;
use crate::simd::{Storage, level, vectorize};
use micro::{NR, STEPS, Tiles};
use pack::Window;
use rayon::prelude::*;
use std::cell::RefCell;

/// Rows of C in a block: the packed rows of A stay in the second-level cache.
const BLOCK_ROWS: usize = 252;
/// Columns of C in a block, at most.
const BLOCK_COLUMNS: usize = 512;

/// One product `A (M, depth) · B (depth, N)` of a sum of products.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    pub depth: usize,
}

/// Where a product starts: from nothing, or from what the destination or another array holds.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// `(M, N)` f32.
    From(&'a [f32]),
}

/// `c (M, N) = start + Σ a · b`, segment after segment, k ascending inside each.
///
/// The bits of an element depend on its row of A, its column of B and the segments alone.
pub fn multiply<T: Storage>(
    c: &mut [T],
    (m, n): (usize, usize),
    start: Start,
    segments: &[Segment],
    precision: Precision,
) {
    let rows = BLOCK_ROWS.min(m.max(1));
    let row_blocks = m.div_ceil(rows);
    // Enough blocks for every thread to share the work, as wide as that allows.
    let wanted = (4 * rayon::current_num_threads()).div_ceil(row_blocks.max(1));
    let columns = n.div_ceil(wanted).next_multiple_of(NR).clamp(NR, BLOCK_COLUMNS);
    let column_blocks = n.div_ceil(columns);
    assert!(c.len() >= m * n, "C ({m}, {n}) does not fit its slice");
    let out = Disjoint::new(c);
    (0..row_blocks * column_blocks).into_par_iter().for_each(|i| {
        let (r, j) = (i % row_blocks * rows, i / row_blocks * columns);
        let (height, width) = (rows.min(m - r), columns.min(n - j));
        with_block(height, width, |block, stride| {
            if let Start::From(from) = start {
                for (row, block) in block.chunks_exact_mut(stride).enumerate() {
                    block[..width].copy_from_slice(&from[(r + row) * n + j..][..width]);
                }
            }
            accumulate(block, stride, (r, height), (j, width), segments, precision);
            for (row, block) in block.chunks_exact(stride).enumerate() {
                // SAFETY: blocks of C do not overlap, and each is one task's.
                let c = unsafe { out.slice((r + row) * n + j, width) };
                vectorize(
                    #[inline(always)]
                    || c.iter_mut().zip(block).for_each(|(c, &x)| *c = T::put(x)),
                );
            }
        });
    });
}

/// Lends a zeroed f32 block of `height` by `width` (rows `stride` apart) out of the thread's own memory.
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

/// `c += Σ a · b` for rows `r..r+height` and columns `j..j+width` of the product, on the calling thread.
///
/// `c` has rows of `stride` values, a multiple of 32 that is at least `width`; the columns from `width` to
/// `stride` are scratch.
pub(crate) fn accumulate(
    c: &mut [f32],
    stride: usize,
    (r, height): (usize, usize),
    (j, width): (usize, usize),
    segments: &[Segment],
    precision: Precision,
) {
    thread_local! {
        static PACKED: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    }
    assert!(c.len() >= height * stride && stride.is_multiple_of(NR) && width <= stride);
    let (layout, tiles) = (precision.layout(), Tiles::select(level(), precision.layout()));
    let (mut a, mut b) = PACKED.take();
    // As many chunks of A as fit are packed at once: few rows then walk the weights' rows from end to end.
    let chunk = height * STEPS;
    let chunks = (BLOCK_ROWS / height.max(1)).max(1);
    a.resize(a.len().max(chunk * chunks), 0);
    b.resize(STEPS * NR, 0);
    for &Segment { a: a_operand, b: b_operand, depth } in segments {
        let few = few::select(height, &b_operand, precision);
        let windows: Vec<Window> = (0..depth)
            .step_by(STEPS * pack::terms(layout))
            .map(|k| Window {
                outer: r,
                count: height,
                k,
                steps: (depth - k).div_ceil(pack::terms(layout)).min(STEPS),
                depth,
            })
            .collect();
        for windows in windows.chunks(chunks) {
            for (w, a) in windows.iter().zip(a.chunks_exact_mut(chunk)) {
                pack::rows(a, &a_operand, *w, precision);
            }
            let mut panels = windows.to_vec();
            for column in (0..width).step_by(NR) {
                for w in &mut panels {
                    (w.outer, w.count) = (j + column, NR.min(width - column));
                }
                let c = c[column..].as_mut_ptr();
                if let Some(few) = few {
                    // SAFETY: `a` is (windows, height, STEPS), `c` was checked above; the function was selected for
                    // this machine.
                    unsafe { few(c, stride, a.as_ptr(), &b_operand, &panels) };
                    continue;
                }
                for (w, a) in panels.iter().zip(a.chunks_exact(chunk)) {
                    pack::panel(&mut b, &b_operand, *w, precision);
                    // SAFETY: `a` is (height, STEPS), `b` (steps, NR), `c` was checked above; the tiles were
                    // selected for this machine.
                    unsafe { tiles.multiply(height, w.steps, a.as_ptr(), b.as_ptr(), c, stride) };
                }
            }
        }
    }
    PACKED.set((a, b));
}
