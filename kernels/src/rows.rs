//! How row-wise ops are cut into tasks, and sums over rows in a fixed order.

use crate::simd::Storage;

/// Elements that make a task worth handing to another thread.
pub(crate) const TASK: usize = 1 << 14;

/// Rows of `columns` elements that make one task. No result depends on it: every row is computed alone.
pub(crate) fn per_task(columns: usize) -> usize {
    (TASK / columns.max(1)).max(1)
}

/// Columns summed at once, in registers.
const STRIPE: usize = 64;

/// out[c] = Σ term(row, c) over `rows` in their order, in f32, rounded once.
#[inline(always)]
pub(crate) fn sum_rows<E: Storage>(
    out: &mut [E],
    rows: impl Iterator<Item = usize> + Clone,
    term: impl Fn(usize, usize) -> f32,
) {
    for (stripe, out) in out.chunks_mut(STRIPE).enumerate() {
        let mut sums = [0.0f32; STRIPE];
        for row in rows.clone() {
            for (c, sum) in sums[..out.len()].iter_mut().enumerate() {
                *sum += term(row, stripe * STRIPE + c);
            }
        }
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = E::put(s));
    }
}
