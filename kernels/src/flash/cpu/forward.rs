//! Forward: a tile of query rows visits the tiles of keys up to itself, with an online softmax per row and split.

use super::{Heads, KvSource, KvTile, RowTile, TILE, elements, padded_dim, product, softmax_scale};
use crate::disjoint::DisjointSlice;
use crate::flash::SPLIT;
use crate::gemm::cpu::Matrix;
use crate::simd::{Storage, exp, max, sum, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Computes `o (T, H·D)` and `lse (T, H)` of packed documents.
pub(in super::super) fn forward<T: Storage>(
    o: &mut [T],
    lse: &mut [f32],
    heads: Heads,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    tiles: &[RowTile],
) -> Result<()> {
    let (q, k, v) = (q.slice::<T>()?, k.slice::<T>()?, v.slice::<T>()?);
    forward_tiles(o, Some(lse), heads, q, tiles, |row_tile, kv_head, attend| {
        let row = |position| (row_tile.start + position) * heads.kv_heads + kv_head;
        attend(KvSource { k, v, row: &row });
    });
    Ok(())
}

/// Computes `o`, and `lse` if wanted, for any source of keys and values: `source(row_tile, kv_head, attend)` calls
/// `attend` with the [`KvSource`] of a tile and kv head.
pub(in super::super) fn forward_tiles<T: Storage>(
    o: &mut [T],
    lse: Option<&mut [f32]>,
    heads: Heads,
    q: &[T],
    tiles: &[RowTile],
    source: impl Fn(&RowTile, usize, &mut dyn FnMut(KvSource<T>)) + Sync,
) {
    let (o, lse) = (DisjointSlice::new(o), lse.map(DisjointSlice::new));
    let tasks = tiles.len() * heads.kv_heads;
    (0..tasks).into_par_iter().for_each_on_team(|task| {
        let (row_tile, kv_head) = (&tiles[task / heads.kv_heads], task % heads.kv_heads);
        source(row_tile, kv_head, &mut |kv| attend(&o, lse.as_ref(), heads, q, row_tile, kv_head, kv));
    });
}

/// Attention of the query heads of one kv head, for one tile of rows: the states of splits of [`SPLIT`] keys, each made
/// on its own, are joined in ascending order.
fn attend<T: Storage>(
    o: &DisjointSlice<T>,
    lse: Option<&DisjointSlice<f32>>,
    heads: Heads,
    q: &[T],
    row_tile: &RowTile,
    kv_head: usize,
    kv: KvSource<T>,
) {
    let (d, group) = (heads.head_dim, heads.heads / heads.kv_heads);
    let (q_width, rows) = (heads.heads * d, row_tile.rows);
    let queries = GroupQueries { q, heads, row_tile, kv_head };
    let last = row_tile.position + rows;
    let mut states = vec![OnlineSoftmax::new(rows, padded_dim(d)); group];
    queries.fold(&mut states, &kv, 0..last.min(SPLIT));
    if last > SPLIT {
        let mut later = states.clone();
        for from in (SPLIT..last).step_by(SPLIT) {
            later.iter_mut().for_each(OnlineSoftmax::clear);
            queries.fold(&mut later, &kv, from..last.min(from + SPLIT));
            states.iter_mut().zip(&later).for_each(|(state, later)| state.join(later));
        }
    }
    for (g, state) in states.iter().enumerate() {
        let head = kv_head * group + g;
        for r in 0..rows {
            // SAFETY: no other task has this row and head.
            let o = unsafe { o.slice((row_tile.row + r) * q_width + head * d, d) };
            let (inverse, acc) = (1.0 / state.row_sum[r], &state.acc[r * state.stride..]);
            vectorize(
                #[inline(always)]
                || o.iter_mut().zip(acc).for_each(|(o, a)| *o = T::put(a * inverse)),
            );
            if let Some(lse) = lse {
                // SAFETY: as above.
                let lse = unsafe { lse.slice((row_tile.row + r) * heads.heads + head, 1) };
                lse[0] = state.row_max[r] + state.row_sum[r].ln();
            }
        }
    }
}

/// The rows of q of a tile, in the query heads of one kv head.
struct GroupQueries<'a, T> {
    /// (T, H·D).
    q: &'a [T],
    heads: Heads,
    row_tile: &'a RowTile,
    kv_head: usize,
}

impl<T: Storage> GroupQueries<'_, T> {
    /// Adds the keys and values at positions `keys` to the state of each head, tile by tile.
    fn fold(&self, states: &mut [OnlineSoftmax], kv: &KvSource<T>, keys: Range<usize>) {
        let (d, rows, group) = (self.heads.head_dim, self.row_tile.rows, states.len());
        let q_width = self.heads.heads * d;
        let (mut kv_tile, mut scores) = (KvTile::default(), vec![0.0f32; rows * TILE]);
        for from in keys.clone().step_by(TILE) {
            let to = keys.end.min(from + TILE);
            kv_tile.load(kv, (from, to), d);
            for (g, state) in states.iter_mut().enumerate() {
                let channel = (self.kv_head * group + g) * d;
                let q = Matrix::k_major(elements(&self.q[self.row_tile.row * q_width + channel..]), q_width);
                scores.fill(0.0);
                let keys = Matrix::k_major(elements(&kv_tile.k), d);
                product::<T>(&mut scores, TILE, (rows, to - from), q, keys, d);
                state.update(&mut scores, self.row_tile.position, from, softmax_scale(self.heads));
                let (p, values) =
                    (Matrix::k_major(elements(&scores), TILE), Matrix::mn_major(elements(&kv_tile.v), d));
                product::<T>(&mut state.acc, state.stride, (rows, d), p, values, to - from);
            }
        }
    }
}

/// Online softmax of one query head over a tile of rows.
#[derive(Clone)]
struct OnlineSoftmax {
    /// Running maximum of the scores of each row.
    row_max: [f32; TILE],
    /// Running Σ exp(score − max) of each row.
    row_sum: [f32; TILE],
    /// Running Σ exp(score − max) v: (rows, stride).
    acc: Vec<f32>,
    /// D, padded.
    stride: usize,
}

impl OnlineSoftmax {
    fn new(rows: usize, stride: usize) -> Self {
        let acc = vec![0.0; rows * stride];
        OnlineSoftmax { row_max: [f32::NEG_INFINITY; TILE], row_sum: [0.0; TILE], acc, stride }
    }

    /// Forgets all keys.
    fn clear(&mut self) {
        self.row_max.fill(f32::NEG_INFINITY);
        self.row_sum.fill(0.0);
        self.acc.fill(0.0);
    }

    /// Adds the keys of a later state of the same rows, of which each row has seen at least one.
    fn join(&mut self, later: &OnlineSoftmax) {
        vectorize(
            #[inline(always)]
            || {
                let acc = self.acc.chunks_exact_mut(self.stride).zip(later.acc.chunks_exact(self.stride));
                for (r, (acc, later_acc)) in acc.enumerate() {
                    let max = self.row_max[r].max(later.row_max[r]);
                    let (older, newer) = (exp(self.row_max[r] - max), exp(later.row_max[r] - max));
                    self.row_max[r] = max;
                    self.row_sum[r] = self.row_sum[r] * older + later.row_sum[r] * newer;
                    acc.iter_mut().zip(later_acc).for_each(|(x, y)| *x = *x * older + y * newer);
                }
            },
        );
    }

    /// Turns a tile of scores into exp(score − max), and rescales sums and accumulators to the new maximum. Each stage passes
    /// over all rows: a row alone would wait for itself in every one.
    fn update(&mut self, scores: &mut [f32], position: usize, from: usize, scale: f32) {
        let (mut tile_max, mut tile_sum, mut corrections) = ([0.0f32; TILE], [0.0f32; TILE], [0.0f32; TILE]);
        // Causal mask: only columns up to the row's own position count, and rows before the tile's first key see none.
        let rows = from.saturating_sub(position).min(scores.len() / TILE)..scores.len() / TILE;
        let (unseen, scores) = scores.split_at_mut(rows.start * TILE);
        unseen.fill(0.0);
        let visible = |r: usize| (position + r + 1 - from).min(TILE);
        // Loops of a constant length have no remainder. Of sums, the compiler makes chains of single numbers then.
        let width = scores.len() / rows.len().max(1);
        let (scores, _) = scores.as_chunks_mut::<TILE>();
        vectorize(
            #[inline(always)]
            || {
                for (r, s) in rows.clone().zip(&mut *scores) {
                    s.iter_mut().for_each(|s| *s *= scale);
                    s[visible(r)..].fill(f32::NEG_INFINITY);
                    tile_max[r] = max(&s[..width]);
                }
                let maxima = self.row_max[rows.clone()].iter_mut().zip(&tile_max[rows.clone()]);
                for ((max, &tile_max), correction) in maxima.zip(&mut corrections[rows.clone()]) {
                    let before = *max;
                    *max = if tile_max > before { tile_max } else { before };
                    *correction = exp(before - *max);
                }
                for (r, s) in rows.clone().zip(&mut *scores) {
                    let max = self.row_max[r];
                    s.iter_mut().for_each(|s| *s = exp(*s - max));
                    s[visible(r)..].fill(0.0);
                    tile_sum[r] = sum(&s[..width], |s| s);
                }
                for r in rows {
                    let correction = corrections[r];
                    self.row_sum[r] = self.row_sum[r] * correction + tile_sum[r];
                    if correction != 1.0 {
                        self.acc[r * self.stride..][..self.stride].iter_mut().for_each(|a| *a *= correction);
                    }
                }
            },
        );
    }
}
