//! How row-wise ops are cut into tasks, and sums over rows in a fixed order.

use crate::simd::Storage;
use std::ops::Range;

/// Which rows of a whole matrix a part of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// What the part's first row is in the whole.
    pub first: usize,
    /// Rows of the whole.
    pub of: usize,
}

/// Elements that make a task worth handing to another thread.
pub(crate) const TASK: usize = 1 << 14;

/// Rows of `columns` elements that make one task. No result depends on it: every row is computed alone.
pub(crate) fn per_task(columns: usize) -> usize {
    (TASK / columns.max(1)).max(1)
}

/// Columns summed at once, in registers.
const STRIPE: usize = 64;

/// out[c] = Σ of the terms of column c over `rows` in their order, in f32, rounded once. `terms` gives those
/// of a row in a range of columns.
#[inline(always)]
pub(crate) fn sum_rows<E: Storage, Terms: Iterator<Item = f32>>(
    out: &mut [E],
    rows: impl Iterator<Item = usize> + Clone,
    terms: impl Fn(usize, Range<usize>) -> Terms,
) {
    for (stripe, out) in out.chunks_mut(STRIPE).enumerate() {
        let columns = stripe * STRIPE..stripe * STRIPE + out.len();
        let mut sums = [0.0f32; STRIPE];
        for row in rows.clone() {
            sums.iter_mut().zip(terms(row, columns.clone())).for_each(|(sum, term)| *sum += term);
        }
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = E::put(s));
    }
}
