//! Rows: a rank's shard of them, their division into parallel tasks, and sums over them in a fixed order.

use crate::simd::Storage;
use codelsi_engine::team::ForEachOnTeam;
use rayon::prelude::*;
use std::ops::Range;

/// The rows of a matrix that one shard of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShard {
    /// Index of the shard's first row in the unsharded matrix.
    pub first: usize,
    /// Rows of the unsharded matrix.
    pub total: usize,
}

/// Elements of a task: enough to be worth handing to another thread.
pub(crate) const TASK_SIZE: usize = 1 << 14;

/// Returns how many rows of `columns` elements make one task. No result depends on it: each row is computed separately.
pub(crate) fn rows_per_task(columns: usize) -> usize {
    (TASK_SIZE / columns.max(1)).max(1)
}

/// Calls `f` on the index and the elements of each row of `columns` elements, on all threads.
pub(crate) fn for_each_row<T: Send>(x: &mut [T], columns: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    x.par_chunks_mut(columns.max(1)).enumerate().for_each_on_team(|(t, x)| f(t, x));
}

/// Columns summed at once, in registers.
const STRIPE: usize = 64;

/// Sums columns: out[c] = Σ of the terms of column c over `rows` in their order, in f32, rounded once. `terms` returns
/// the terms of one row in a range of columns.
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
