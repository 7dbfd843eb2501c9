//! Forward: a task's query rows visit the tiles of keys up to themselves, with an online softmax per row and split.

use super::{
    Heads, KvSource, KvTile, RowTile, TILE, padded_dim, product, rows_of_task, softmax_scale,
    tiles_of_documents,
};
use crate::aligned::AlignedVec;
use crate::disjoint::DisjointSlice;
use crate::flash::SPLIT;
use crate::gemm::cpu::packed_rows::RowBuffer;
use crate::gemm::cpu::panels::PanelBuffer;
use crate::gemm::cpu::{Elements, Matrix, Precision, Start};
use crate::simd::{LANES, Partials, Storage, exp_each, partial_maxima, partial_sums, vectorize};
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
    documents: &Tensor,
) -> Result<()> {
    let rows = q.shape()[0];
    let tiles = tiles_of_documents(documents.slice()?, rows, rows_of_task(rows, heads))?;
    let (q, k, v) = (q.slice::<T>()?, k.slice::<T>()?, v.slice::<T>()?);
    forward_tiles(o, Some(lse), heads, q, &tiles, |row_tile, kv_head, attend| {
        let row = |position| (row_tile.start + position) * heads.kv_heads + kv_head;
        attend(KvSource { k, v, row: &row, stride: Some(heads.kv_heads) });
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
        // Rows of a head follow one another, so that its keys and values stay in the cache; the last, which see most, come
        // first.
        let (row_tile, kv_head) = (&tiles[tiles.len() - 1 - task % tiles.len()], task / tiles.len());
        source(row_tile, kv_head, &mut |kv| {
            let queries = GroupQueries { q, heads, row_tile, kv_head };
            queries.attend(&o, lse.as_ref(), kv);
        });
    });
}

/// The rows of q of a task, in the query heads of one kv head.
struct GroupQueries<'a, T> {
    /// (T, H·D).
    q: &'a [T],
    heads: Heads,
    row_tile: &'a RowTile,
    kv_head: usize,
}

impl<T: Storage> GroupQueries<'_, T> {
    /// Computes o and L of all rows and heads: the states of splits of [`SPLIT`] keys, each made on its own, are joined in
    /// ascending order.
    fn attend(&self, o: &DisjointSlice<T>, lse: Option<&DisjointSlice<f32>>, kv: KvSource<T>) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let heads = self.kv_head * group..(self.kv_head + 1) * group;
        let new =
            |rows: RowTile| heads.clone().map(move |head| OnlineSoftmax::new(rows, head, padded_dim(d)));
        let mut states: Vec<OnlineSoftmax> = self.row_tile.tiles().flat_map(new).collect();
        let queries: Vec<RowBuffer> = states.iter().map(|state| self.pack(state)).collect();
        let last = self.row_tile.end_position();
        self.fold(&mut states, &queries, &kv, 0..last.min(SPLIT));
        for from in (SPLIT..last).step_by(SPLIT) {
            // Rows are in order, so that those which see these keys are the last.
            let unseen = states.iter().take_while(|state| state.rows.end_position() <= from).count();
            let mut later: Vec<OnlineSoftmax> =
                states[unseen..].iter().map(OnlineSoftmax::start_anew).collect();
            self.fold(&mut later, &queries[unseen..], &kv, from..last.min(from + SPLIT));
            states[unseen..].iter_mut().zip(&later).for_each(|(state, later)| state.join(later));
        }
        states.iter().for_each(|state| state.store(o, lse, self.heads));
    }

    /// Packs the queries of a state for the products with every tile of keys.
    fn pack(&self, state: &OnlineSoftmax) -> RowBuffer {
        let (d, width) = (self.heads.head_dim, self.heads.heads * self.heads.head_dim);
        let q = Matrix::k_major(Elements::of(&self.q[state.rows.row * width + state.head * d..]), width);
        RowBuffer::pack(&q, (state.rows.rows, d), Precision::of::<T>())
    }

    /// Adds the keys and values at positions `keys` to the states, tile by tile.
    fn fold(
        &self,
        states: &mut [OnlineSoftmax],
        queries: &[RowBuffer],
        kv: &KvSource<T>,
        keys: Range<usize>,
    ) {
        let d = self.heads.head_dim;
        let mut kv_tile = KvTile::default();
        let [mut k_panels, mut v_panels] = [(); 2].map(|()| PanelBuffer::new(Precision::of::<T>()));
        let mut scores = AlignedVec::scratch(TILE * TILE);
        for from in keys.clone().step_by(TILE) {
            let n = keys.end.min(from + TILE) - from;
            let [mut keys, mut values] = kv_tile.load(kv, (from, from + n), d);
            // One product alone packs what it needs.
            if states.len() > 1 {
                k_panels.pack(&keys, (n, d));
                v_panels.pack(&values, (d, n));
                (keys, values) = (k_panels.operand(), v_panels.operand());
            }
            let seeing = states.iter_mut().zip(queries).filter(|(state, _)| state.rows.end_position() > from);
            for (state, q) in seeing {
                let (rows, stride) = (state.rows.rows, state.stride);
                let scores = &mut scores[..rows * TILE];
                product::<T>((scores, TILE, Start::Zero), (rows, n), q.operand(), keys, d);
                state.update(scores, from, softmax_scale(self.heads));
                let p = Matrix::k_major(Elements::of(scores), TILE);
                product::<T>((&mut state.acc, stride, state.start), (rows, d), p, values, n);
                state.start = Start::C;
            }
        }
    }
}

/// Online softmax of one query head over a tile of rows.
struct OnlineSoftmax {
    rows: RowTile,
    head: usize,
    /// Running maximum of the scores of each row.
    row_max: [f32; TILE],
    /// Running Σ exp(score − max) of each row.
    row_sum: [f32; TILE],
    /// Running Σ exp(score − max) v: (rows, stride).
    acc: AlignedVec<f32>,
    /// Zero until the first tile of keys has been added.
    start: Start,
    /// D, padded.
    stride: usize,
}

impl OnlineSoftmax {
    fn new(rows: RowTile, head: usize, stride: usize) -> Self {
        let (row_max, row_sum) = ([f32::NEG_INFINITY; TILE], [0.0; TILE]);
        let acc = AlignedVec::scratch(rows.rows * stride);
        OnlineSoftmax { rows, head, row_max, row_sum, acc, start: Start::Zero, stride }
    }

    /// Returns a state of the same rows that has seen no key.
    fn start_anew(&self) -> Self {
        OnlineSoftmax::new(self.rows, self.head, self.stride)
    }

    /// Adds the keys of a later state of the same rows, of which each row has seen at least one.
    fn join(&mut self, later: &OnlineSoftmax) {
        let (mut older, mut newer) = ([0.0f32; TILE], [0.0f32; TILE]);
        vectorize(
            #[inline(always)]
            || {
                for r in 0..TILE {
                    let max = self.row_max[r].max(later.row_max[r]);
                    (older[r], newer[r]) = (self.row_max[r] - max, later.row_max[r] - max);
                    self.row_max[r] = max;
                }
                exp_each(&mut older, |x| x);
                exp_each(&mut newer, |x| x);
                for r in 0..TILE {
                    self.row_sum[r] = self.row_sum[r] * older[r] + later.row_sum[r] * newer[r];
                }
                let acc = self.acc.chunks_exact_mut(self.stride).zip(later.acc.chunks_exact(self.stride));
                for (r, (acc, later)) in acc.enumerate() {
                    acc.iter_mut().zip(later).for_each(|(x, y)| *x = *x * older[r] + y * newer[r]);
                }
            },
        );
    }

    /// Stores o, and L if wanted.
    fn store<T: Storage>(&self, o: &DisjointSlice<T>, lse: Option<&DisjointSlice<f32>>, heads: Heads) {
        let (d, q_width) = (heads.head_dim, heads.heads * heads.head_dim);
        vectorize(
            #[inline(always)]
            || {
                for (r, acc) in self.acc.chunks_exact(self.stride).enumerate() {
                    // SAFETY: no other task has this row and head.
                    let o = unsafe { o.slice((self.rows.row + r) * q_width + self.head * d, d) };
                    let inverse = 1.0 / self.row_sum[r];
                    o.iter_mut().zip(acc).for_each(|(o, a)| *o = T::put(a * inverse));
                }
            },
        );
        for (r, row) in (self.rows.row..).take(self.rows.rows).enumerate() {
            let Some(lse) = lse else { return };
            // SAFETY: as above.
            let lse = unsafe { lse.slice(row * heads.heads + self.head, 1) };
            lse[0] = self.row_max[r] + self.row_sum[r].ln();
        }
    }

    /// Turns a tile of scores into exp(score − max), and rescales sums and accumulators to the new maximum. Each stage passes
    /// over all rows: a row alone would wait for itself in every one.
    fn update(&mut self, scores: &mut [f32], from: usize, scale: f32) {
        let position = self.rows.position;
        let (mut partials, mut corrections) = ([Partials::ZERO; TILE], [0.0f32; TILE]);
        // Causal mask: only columns up to the row's own position count, and rows before the tile's first key see none.
        let rows = from.saturating_sub(position).min(scores.len() / TILE)..scores.len() / TILE;
        let (unseen, scores) = scores.split_at_mut(rows.start * TILE);
        unseen.fill(0.0);
        let visible = |r: usize| (position + r + 1 - from).min(TILE);
        let (scores, _) = scores.as_chunks_mut::<TILE>();
        vectorize(
            #[inline(always)]
            || {
                for (r, s) in rows.clone().zip(&mut *scores) {
                    s[visible(r)..].fill(f32::NEG_INFINITY);
                    partials[r] = partial_maxima(s);
                }
                let maxima = self.row_max[rows.clone()].iter_mut().zip(&partials[rows.clone()]);
                for ((max, partials), correction) in maxima.zip(&mut corrections[rows.clone()]) {
                    // Rounding is monotonic: it is the maximum of the scaled scores.
                    let (before, tile_max) = (*max, partials.max() * scale);
                    *max = if tile_max > before { tile_max } else { before };
                    *correction = before - *max;
                }
                exp_each(&mut corrections, |x| x);
                for (r, s) in rows.clone().zip(&mut *scores) {
                    let max = self.row_max[r];
                    exp_each(&mut s[..visible(r).next_multiple_of(LANES)], |s| s * scale - max);
                    s[visible(r)..].fill(0.0);
                    partials[r] = partial_sums(s);
                }
                for r in rows {
                    let correction = corrections[r];
                    self.row_sum[r] = self.row_sum[r] * correction + partials[r].sum();
                    if correction != 1.0 && self.start == Start::C {
                        self.acc[r * self.stride..][..self.stride].iter_mut().for_each(|a| *a *= correction);
                    }
                }
            },
        );
    }
}
