//! Backward in two passes: dq by blocks of rows, then dk and dv by blocks of columns. Both form the same P and
//! dS from the saved log-sum-exp.

use super::{Block, Heads, Kv, KvTile, TILE, data, padded, product, scale};
use crate::disjoint::Disjoint;
use crate::gemm::cpu::Operand;
use crate::simd::{Storage, exp, sum, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// What forward saved.
#[derive(Clone, Copy)]
pub(in super::super) struct Forward<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub o: &'a Tensor,
    pub lse: &'a Tensor,
}

/// Everything a pass reads.
struct Inputs<'a, T> {
    heads: Heads,
    q: &'a [T],
    d_o: &'a [T],
    k: &'a [T],
    v: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
}

/// Fills `(dq, dk, dv)`; `delta (T, H)` is working memory.
pub(in super::super) fn backward<T: Storage>(
    (dq, dk, dv): (&mut Tensor, &mut Tensor, &mut Tensor),
    delta: &mut [f32],
    heads: Heads,
    saved: Forward,
    d_o: &Tensor,
    blocks: &[Block],
) -> Result<()> {
    let d_o = d_o.slice::<T>()?;
    fill_delta(delta, d_o, saved.o.slice::<T>()?, heads.head_dim);
    let x = Inputs {
        heads,
        q: saved.q.slice::<T>()?,
        d_o,
        k: saved.k.slice::<T>()?,
        v: saved.v.slice::<T>()?,
        lse: saved.lse.slice()?,
        delta,
    };
    let (dq, dk, dv) = (dq.slice_mut::<T>()?, dk.slice_mut::<T>()?, dv.slice_mut::<T>()?);
    let tasks = || (0..blocks.len() * heads.kv_heads).into_par_iter();
    let task = |i: usize| (&blocks[i / heads.kv_heads], i % heads.kv_heads);
    let dq = Disjoint::new(dq);
    tasks().for_each(|i| x.rows_pass(&dq, task(i)));
    let (dk, dv) = (Disjoint::new(dk), Disjoint::new(dv));
    tasks().for_each(|i| x.columns_pass((&dk, &dv), task(i)));
    Ok(())
}

/// Δ = Σ_d do·o of every row and head.
fn fill_delta<T: Storage>(delta: &mut [f32], d_o: &[T], o: &[T], d: usize) {
    let parts =
        delta.par_iter_mut().with_min_len(256).zip(d_o.par_chunks_exact(d).zip(o.par_chunks_exact(d)));
    parts.for_each(|(delta, (d_o, o))| *delta = vectorize(|| sum(d, |i| d_o[i].get() * o[i].get())));
}

/// P and dS of one tile of one head: `(rows, TILE)` f32 each, zero where masked.
struct Tile {
    p: Vec<f32>,
    ds: Vec<f32>,
}

impl<T: Storage> Inputs<'_, T> {
    fn q_width(&self) -> usize {
        self.heads.heads * self.heads.head_dim
    }

    fn load(&self, tile: &mut KvTile<T>, start: usize, span: (usize, usize), kv_head: usize) {
        let (d, width) = (self.heads.head_dim, self.heads.kv_heads * self.heads.head_dim);
        let row = |position| start + position;
        tile.load(&Kv { k: self.k, v: self.v, width, row: &row }, span, kv_head * d, d);
    }

    /// A block of rows of a (T, H·D) array, of one head.
    fn rows_of<'a>(&self, x: &'a [T], row: usize, head: usize) -> &'a [T] {
        &x[row * self.q_width() + head * self.heads.head_dim..]
    }

    /// P and dS of `block`'s rows against the keys at positions `from..to`.
    fn tile(&self, out: &mut Tile, kv: &KvTile<T>, block: &Block, (from, to): (usize, usize), head: usize) {
        let (d, width, rows) = (self.heads.head_dim, self.q_width(), block.rows);
        for x in [&mut out.p, &mut out.ds] {
            x.clear();
            x.resize(rows * TILE, 0.0);
        }
        let operand = |x| Operand::rows(data(self.rows_of(x, block.row, head)), width);
        let (keys, values) = (Operand::rows(data(&kv.k), d), Operand::rows(data(&kv.v), d));
        product::<T>(&mut out.p, TILE, (rows, to - from), operand(self.q), keys, d);
        product::<T>(&mut out.ds, TILE, (rows, to - from), operand(self.d_o), values, d);
        let scale = scale(self.heads);
        let stat = |x: &[f32], r: usize| x[(block.row + r) * self.heads.heads + head];
        vectorize(
            #[inline(always)]
            || {
                let tiles = out.p.chunks_exact_mut(TILE).zip(out.ds.chunks_exact_mut(TILE));
                for (r, (p, ds)) in tiles.enumerate() {
                    let seen = (block.position + r + 1).saturating_sub(from).min(to - from);
                    let (lse, delta) = (stat(self.lse, r), stat(self.delta, r));
                    for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                        *p = exp(*p * scale - lse);
                        *ds = *p * (*ds - delta) * scale;
                    }
                    p[seen..].fill(0.0);
                    ds[seen..].fill(0.0);
                }
            },
        );
    }

    /// dq of a block of rows, for the query heads of one kv head.
    fn rows_pass(&self, dq: &Disjoint<T>, (block, kv_head): (&Block, usize)) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let stride = padded(d);
        let mut sums = vec![vec![0.0f32; block.rows * stride]; group];
        let (mut kv, mut tile) = (KvTile::default(), Tile { p: vec![], ds: vec![] });
        let last = block.position + block.rows;
        for from in (0..last).step_by(TILE) {
            let span = (from, last.min(from + TILE));
            self.load(&mut kv, block.start, span, kv_head);
            for (g, sums) in sums.iter_mut().enumerate() {
                self.tile(&mut tile, &kv, block, span, kv_head * group + g);
                let (ds, keys) = (Operand::rows(data(&tile.ds), TILE), Operand::columns(data(&kv.k), d));
                product::<T>(sums, stride, (block.rows, d), ds, keys, span.1 - span.0);
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            let channel = (kv_head * group + g) * d;
            write(dq, (block.row, block.rows), self.q_width(), channel, d, sums);
        }
    }

    /// dk and dv of the keys in a block, from all rows of the document at or after it.
    fn columns_pass(&self, (dk, dv): (&Disjoint<T>, &Disjoint<T>), (block, kv_head): (&Block, usize)) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let (stride, keys, width) = (padded(d), block.rows, self.q_width());
        let (mut dk_sum, mut dv_sum) = (vec![0.0f32; keys * stride], vec![0.0f32; keys * stride]);
        let (mut kv, mut tile) = (KvTile::default(), Tile { p: vec![], ds: vec![] });
        let span = (block.position, block.position + keys);
        self.load(&mut kv, block.start, span, kv_head);
        for row in (block.row..block.end).step_by(TILE) {
            let rows = TILE.min(block.end - row);
            let queries = Block { row, rows, position: row - block.start, ..*block };
            for head in kv_head * group..(kv_head + 1) * group {
                self.tile(&mut tile, &kv, &queries, span, head);
                // Transposed: the keys are the outer index, the rows are summed over.
                let outer = |x| Operand { data: x, outer_stride: 1, k_stride: TILE };
                let d_o = Operand::columns(data(self.rows_of(self.d_o, row, head)), width);
                let q = Operand::columns(data(self.rows_of(self.q, row, head)), width);
                product::<T>(&mut dv_sum, stride, (keys, d), outer(data(&tile.p)), d_o, rows);
                product::<T>(&mut dk_sum, stride, (keys, d), outer(data(&tile.ds)), q, rows);
            }
        }
        let kv_width = self.heads.kv_heads * d;
        write(dk, (block.row, keys), kv_width, kv_head * d, d, &dk_sum);
        write(dv, (block.row, keys), kv_width, kv_head * d, d, &dv_sum);
    }
}

/// Rounds `(rows, d)` sums into rows `row..` of a `(T, width)` array, at `channel`.
fn write<T: Storage>(
    out: &Disjoint<T>,
    (row, rows): (usize, usize),
    width: usize,
    channel: usize,
    d: usize,
    sums: &[f32],
) {
    for (r, sums) in sums.chunks_exact(padded(d)).enumerate().take(rows) {
        // SAFETY: this row and head are the calling task's alone.
        let out = unsafe { out.slice((row + r) * width + channel, d) };
        out.iter_mut().zip(sums).for_each(|(o, &s)| *o = T::put(s));
    }
}
