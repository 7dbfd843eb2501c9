//! Forward: a block of rows walks the tiles of keys before it, keeping a running maximum and sum a row.

use super::{Block, Heads, Kv, KvTile, TILE, data, padded, product, scale};
use crate::disjoint::Disjoint;
use crate::gemm::cpu::Operand;
use crate::simd::{Storage, exp, sum, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// `o (T, H·D)` and `lse (T, H)` of packed documents.
pub(in super::super) fn forward<T: Storage>(
    o: &mut [T],
    lse: &mut [f32],
    heads: Heads,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    blocks: &[Block],
) -> Result<()> {
    let (q, k, v) = (q.slice::<T>()?, k.slice::<T>()?, v.slice::<T>()?);
    let width = heads.kv_heads * heads.head_dim;
    forward_rows(o, Some(lse), heads, q, blocks, |block, attend| {
        let row = |position| block.start + position;
        attend(Kv { k, v, width, row: &row });
    });
    Ok(())
}

/// Forward for any source of keys and values: `source(block, attend)` hands a block its [`Kv`].
pub(in super::super) fn forward_rows<T: Storage>(
    o: &mut [T],
    lse: Option<&mut [f32]>,
    heads: Heads,
    q: &[T],
    blocks: &[Block],
    source: impl Fn(&Block, &mut dyn FnMut(Kv<T>)) + Sync,
) {
    let (o, lse) = (Disjoint::new(o), lse.map(Disjoint::new));
    let tasks = blocks.len() * heads.kv_heads;
    (0..tasks).into_par_iter().for_each(|task| {
        let (block, kv_head) = (&blocks[task / heads.kv_heads], task % heads.kv_heads);
        source(block, &mut |kv| attend(&o, lse.as_ref(), heads, q, block, kv_head, kv));
    });
}

/// One query head's running softmax over a block of rows.
struct State {
    /// Largest score so far, a row.
    max: [f32; TILE],
    /// Σ exp(score − max) so far, a row.
    sum: [f32; TILE],
    /// Σ exp(score − max) v so far: (rows, padded D).
    acc: Vec<f32>,
}

/// The query heads of one kv head, for one block of rows.
fn attend<T: Storage>(
    o: &Disjoint<T>,
    lse: Option<&Disjoint<f32>>,
    heads: Heads,
    q: &[T],
    block: &Block,
    kv_head: usize,
    kv: Kv<T>,
) {
    let (d, group) = (heads.head_dim, heads.heads / heads.kv_heads);
    let (q_width, stride, rows) = (heads.heads * d, padded(d), block.rows);
    let fresh = || State { max: [f32::NEG_INFINITY; TILE], sum: [0.0; TILE], acc: vec![0.0; rows * stride] };
    let mut states: Vec<State> = (0..group).map(|_| fresh()).collect();
    let (mut tile, mut scores) = (KvTile::default(), vec![0.0f32; rows * TILE]);
    let last = block.position + rows;
    for from in (0..last).step_by(TILE) {
        let to = last.min(from + TILE);
        tile.load(&kv, (from, to), kv_head * d, d);
        for (g, state) in states.iter_mut().enumerate() {
            let head = kv_head * group + g;
            let q = Operand::rows(data(&q[block.row * q_width + head * d..]), q_width);
            scores.fill(0.0);
            let keys = Operand::rows(data(&tile.k), d);
            product::<T>(&mut scores, TILE, (rows, to - from), q, keys, d);
            state.fold(&mut scores, rows, stride, block.position, from, scale(heads));
            let (p, values) = (Operand::rows(data(&scores), TILE), Operand::columns(data(&tile.v), d));
            product::<T>(&mut state.acc, stride, (rows, d), p, values, to - from);
        }
    }
    for (g, state) in states.iter().enumerate() {
        let head = kv_head * group + g;
        for r in 0..rows {
            // SAFETY: this row and head are this task's alone.
            let o = unsafe { o.slice((block.row + r) * q_width + head * d, d) };
            let inverse = 1.0 / state.sum[r];
            o.iter_mut().zip(&state.acc[r * stride..]).for_each(|(o, a)| *o = T::put(a * inverse));
            if let Some(lse) = lse {
                // SAFETY: as above.
                let lse = unsafe { lse.slice((block.row + r) * heads.heads + head, 1) };
                lse[0] = state.max[r] + state.sum[r].ln();
            }
        }
    }
}

impl State {
    /// Turns a tile of scores into exp(score − max), and brings sums and accumulators to the new maximum.
    fn fold(
        &mut self,
        scores: &mut [f32],
        rows: usize,
        stride: usize,
        position: usize,
        from: usize,
        scale: f32,
    ) {
        vectorize(
            #[inline(always)]
            || {
                for (r, s) in scores.chunks_exact_mut(TILE).enumerate().take(rows) {
                    // Columns up to the row's own position count; the rest of the tile is masked.
                    let seen = (position + r + 1).saturating_sub(from).min(TILE);
                    if seen == 0 {
                        s.fill(0.0);
                        continue;
                    }
                    s[..seen].iter_mut().for_each(|s| *s *= scale);
                    let max = s[..seen].iter().fold(self.max[r], |m, &s| if s > m { s } else { m });
                    let shrink = exp(self.max[r] - max);
                    s[seen..].fill(f32::NEG_INFINITY);
                    s.iter_mut().for_each(|s| *s = exp(*s - max));
                    s[seen..].fill(0.0);
                    self.sum[r] = self.sum[r] * shrink + sum(TILE, |c| s[c]);
                    self.max[r] = max;
                    self.acc[r * stride..][..stride].iter_mut().for_each(|a| *a *= shrink);
                }
            },
        );
    }
}
