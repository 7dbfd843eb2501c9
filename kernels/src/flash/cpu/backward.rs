//! Backward in two passes: dq by tiles of query rows, then dk and dv by tiles of keys. Both recompute the same P and dS
//! from the saved log-sum-exp.

use super::{Heads, KvSource, KvTile, RowTile, TILE, elements, padded_dim, product, softmax_scale};
use crate::disjoint::DisjointSlice;
use crate::gemm::cpu::Matrix;
use crate::simd::{Storage, exp, sum2, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Tensors that forward saved.
#[derive(Clone, Copy)]
pub(in super::super) struct SavedForward<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub o: &'a Tensor,
    pub lse: &'a Tensor,
}

/// Inputs of both passes.
struct BackwardInputs<'a, T> {
    heads: Heads,
    q: &'a [T],
    d_o: &'a [T],
    k: &'a [T],
    v: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
}

/// Computes `(dq, dk, dv)`; `delta (T, H)` is working memory.
pub(in super::super) fn backward<T: Storage>(
    (dq, dk, dv): (&mut Tensor, &mut Tensor, &mut Tensor),
    delta: &mut [f32],
    heads: Heads,
    saved: SavedForward,
    d_o: &Tensor,
    tiles: &[RowTile],
) -> Result<()> {
    let d_o = d_o.slice::<T>()?;
    compute_delta(delta, d_o, saved.o.slice::<T>()?, heads.head_dim);
    let x = BackwardInputs {
        heads,
        q: saved.q.slice::<T>()?,
        d_o,
        k: saved.k.slice::<T>()?,
        v: saved.v.slice::<T>()?,
        lse: saved.lse.slice()?,
        delta,
    };
    let (dq, dk, dv) = (dq.slice_mut::<T>()?, dk.slice_mut::<T>()?, dv.slice_mut::<T>()?);
    let tasks = || (0..tiles.len() * heads.kv_heads).into_par_iter();
    let task = |i: usize| (&tiles[i / heads.kv_heads], i % heads.kv_heads);
    let dq = DisjointSlice::new(dq);
    tasks().for_each_on_team(|i| x.dq_pass(&dq, task(i)));
    let (dk, dv) = (DisjointSlice::new(dk), DisjointSlice::new(dv));
    tasks().for_each_on_team(|i| x.dkdv_pass((&dk, &dv), task(i)));
    Ok(())
}

/// Computes Δ = Σ_d do·o of every row and head.
fn compute_delta<T: Storage>(delta: &mut [f32], d_o: &[T], o: &[T], d: usize) {
    let parts =
        delta.par_iter_mut().with_min_len(256).zip(d_o.par_chunks_exact(d).zip(o.par_chunks_exact(d)));
    parts.for_each_on_team(|(delta, (d_o, o))| {
        *delta = vectorize(|| sum2(d_o, o, |d_o, o| d_o.get() * o.get()))
    });
}

/// P and dS of one tile of one head: `(rows, TILE)` f32 each, zero where masked.
struct ScoreTile {
    p: Vec<f32>,
    ds: Vec<f32>,
}

impl<T: Storage> BackwardInputs<'_, T> {
    fn q_width(&self) -> usize {
        self.heads.heads * self.heads.head_dim
    }

    fn load(&self, tile: &mut KvTile<T>, start: usize, span: (usize, usize), kv_head: usize) {
        let row = |position| (start + position) * self.heads.kv_heads + kv_head;
        tile.load(&KvSource { k: self.k, v: self.v, row: &row }, span, self.heads.head_dim);
    }

    /// Returns a (T, H·D) array from `row` and the first channel of `head` on.
    fn rows_of<'a>(&self, x: &'a [T], row: usize, head: usize) -> &'a [T] {
        &x[row * self.q_width() + head * self.heads.head_dim..]
    }

    /// Computes P and dS of the rows of `row_tile` against the keys at positions `from..to`.
    fn score_tile(
        &self,
        out: &mut ScoreTile,
        kv: &KvTile<T>,
        row_tile: &RowTile,
        (from, to): (usize, usize),
        head: usize,
    ) {
        let (d, width, rows) = (self.heads.head_dim, self.q_width(), row_tile.rows);
        for x in [&mut out.p, &mut out.ds] {
            x.clear();
            x.resize(rows * TILE, 0.0);
        }
        let operand = |x| Matrix::k_major(elements(self.rows_of(x, row_tile.row, head)), width);
        let (keys, values) = (Matrix::k_major(elements(&kv.k), d), Matrix::k_major(elements(&kv.v), d));
        product::<T>(&mut out.p, TILE, (rows, to - from), operand(self.q), keys, d);
        product::<T>(&mut out.ds, TILE, (rows, to - from), operand(self.d_o), values, d);
        let scale = softmax_scale(self.heads);
        let stat = |x: &[f32], r: usize| x[(row_tile.row + r) * self.heads.heads + head];
        vectorize(
            #[inline(always)]
            || {
                let tiles = out.p.chunks_exact_mut(TILE).zip(out.ds.chunks_exact_mut(TILE));
                for (r, (p, ds)) in tiles.enumerate() {
                    let visible = (row_tile.position + r + 1).saturating_sub(from).min(to - from);
                    let (lse, delta) = (stat(self.lse, r), stat(self.delta, r));
                    for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
                        *p = exp(*p * scale - lse);
                        *ds = *p * (*ds - delta) * scale;
                    }
                    p[visible..].fill(0.0);
                    ds[visible..].fill(0.0);
                }
            },
        );
    }

    /// Computes dq of a tile of query rows, for the query heads of one kv head.
    fn dq_pass(&self, dq: &DisjointSlice<T>, (row_tile, kv_head): (&RowTile, usize)) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let stride = padded_dim(d);
        let mut sums = vec![vec![0.0f32; row_tile.rows * stride]; group];
        let (mut kv, mut scores) = (KvTile::default(), ScoreTile { p: vec![], ds: vec![] });
        let last = row_tile.position + row_tile.rows;
        for from in (0..last).step_by(TILE) {
            let span = (from, last.min(from + TILE));
            self.load(&mut kv, row_tile.start, span, kv_head);
            for (g, sums) in sums.iter_mut().enumerate() {
                self.score_tile(&mut scores, &kv, row_tile, span, kv_head * group + g);
                let (ds, keys) =
                    (Matrix::k_major(elements(&scores.ds), TILE), Matrix::mn_major(elements(&kv.k), d));
                product::<T>(sums, stride, (row_tile.rows, d), ds, keys, span.1 - span.0);
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            let channel = (kv_head * group + g) * d;
            store_rows(dq, (row_tile.row, row_tile.rows), self.q_width(), channel, d, sums);
        }
    }

    /// Computes dk and dv of the keys of a tile, from all rows of the document at or after it.
    fn dkdv_pass(
        &self,
        (dk, dv): (&DisjointSlice<T>, &DisjointSlice<T>),
        (row_tile, kv_head): (&RowTile, usize),
    ) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let (stride, keys, width) = (padded_dim(d), row_tile.rows, self.q_width());
        let (mut dk_sum, mut dv_sum) = (vec![0.0f32; keys * stride], vec![0.0f32; keys * stride]);
        let (mut kv, mut scores) = (KvTile::default(), ScoreTile { p: vec![], ds: vec![] });
        let span = (row_tile.position, row_tile.position + keys);
        self.load(&mut kv, row_tile.start, span, kv_head);
        for row in (row_tile.row..row_tile.end).step_by(TILE) {
            let rows = TILE.min(row_tile.end - row);
            let queries = RowTile { row, rows, position: row - row_tile.start, ..*row_tile };
            for head in kv_head * group..(kv_head + 1) * group {
                self.score_tile(&mut scores, &kv, &queries, span, head);
                // Transposed: the keys are the outer index, the rows are summed over.
                let outer = |x| Matrix::mn_major(x, TILE);
                let d_o = Matrix::mn_major(elements(self.rows_of(self.d_o, row, head)), width);
                let q = Matrix::mn_major(elements(self.rows_of(self.q, row, head)), width);
                product::<T>(&mut dv_sum, stride, (keys, d), outer(elements(&scores.p)), d_o, rows);
                product::<T>(&mut dk_sum, stride, (keys, d), outer(elements(&scores.ds)), q, rows);
            }
        }
        let kv_width = self.heads.kv_heads * d;
        store_rows(dk, (row_tile.row, keys), kv_width, kv_head * d, d, &dk_sum);
        store_rows(dv, (row_tile.row, keys), kv_width, kv_head * d, d, &dv_sum);
    }
}

/// Rounds `(rows, d)` sums and stores them in rows `row..` of a `(T, width)` array, from `channel` on.
fn store_rows<T: Storage>(
    out: &DisjointSlice<T>,
    (row, rows): (usize, usize),
    width: usize,
    channel: usize,
    d: usize,
    sums: &[f32],
) {
    for (r, sums) in sums.chunks_exact(padded_dim(d)).enumerate().take(rows) {
        // SAFETY: no other task has this row and head.
        let out = unsafe { out.slice((row + r) * width + channel, d) };
        vectorize(
            #[inline(always)]
            || out.iter_mut().zip(sums).for_each(|(o, &s)| *o = T::put(s)),
        );
    }
}
