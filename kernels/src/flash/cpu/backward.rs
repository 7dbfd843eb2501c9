//! Backward in one pass of five products: a task owns keys of one kv head, and goes through the rows that see them. It forms P
//! and dS again from the saved log-sum-exp, sums dk and dv, and adds its part of dq to what the tasks of earlier keys have
//! left, in their order.

use super::turns::Turns;
use super::{Heads, RowTile, TILE, padded_dim, product, rows_of_task, softmax_scale, tiles_of_documents};
use crate::aligned::AlignedVec;
use crate::disjoint::DisjointSlice;
use crate::gemm::cpu::packed_rows::RowBuffer;
use crate::gemm::cpu::panels::PanelBuffer;
use crate::gemm::cpu::{Elements, Matrix, Precision, Start, round_row};
use crate::simd::{LANES, Storage, exp_each, sum2, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Ctx, DType, Result, Tensor};
use rayon::prelude::*;

/// Tensors that forward saved.
#[derive(Clone, Copy)]
pub(in super::super) struct SavedForward<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub documents: &'a Tensor,
    pub o: &'a Tensor,
    pub lse: &'a Tensor,
}

/// Inputs and outputs of all tasks.
struct Backward<'a, T> {
    heads: Heads,
    q: &'a [T],
    d_o: &'a [T],
    k: &'a [T],
    v: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
    dq: DisjointSlice<'a, T>,
    dk: DisjointSlice<'a, T>,
    dv: DisjointSlice<'a, T>,
    /// Sums of dq (H, T, padded D), unless every document is a tile.
    sums: Option<DisjointSlice<'a, f32>>,
    /// For each tile of rows and kv head, the number of tasks that have added their part of dq.
    turns: Turns,
    /// T, and the keys of a task.
    total_rows: usize,
    height: usize,
}

/// Computes `(dq, dk, dv)`; `delta (T, H)` is working memory.
pub(in super::super) fn backward<T: Storage>(
    cx: &Ctx,
    (dq, dk, dv): (&mut Tensor, &mut Tensor, &mut Tensor),
    delta: &mut [f32],
    heads: Heads,
    saved: SavedForward,
    d_o: &Tensor,
) -> Result<()> {
    let (rows, d_o) = (saved.q.shape()[0], d_o.slice::<T>()?);
    compute_delta(delta, d_o, saved.o.slice::<T>()?, heads.head_dim);
    let sums = [heads.heads, rows, padded_dim(heads.head_dim)];
    let mut sums = (rows > TILE).then(|| cx.scratch(sums, DType::F32));
    let (documents, height) = (saved.documents.slice()?, rows_of_task(rows, heads));
    let mut tiles = tiles_of_documents(documents, rows, height)?;
    // Tasks wait for those of earlier keys, which therefore come first.
    tiles.sort_by_key(|tile| tile.position);
    let x = Backward {
        heads,
        q: saved.q.slice::<T>()?,
        d_o,
        k: saved.k.slice::<T>()?,
        v: saved.v.slice::<T>()?,
        lse: saved.lse.slice()?,
        delta,
        dq: DisjointSlice::new(dq.slice_mut()?),
        dk: DisjointSlice::new(dk.slice_mut()?),
        dv: DisjointSlice::new(dv.slice_mut()?),
        sums: sums.as_mut().map(|sums| sums.slice_mut()).transpose()?.map(DisjointSlice::new),
        turns: Turns::new((rows / TILE + documents.len()) * heads.kv_heads),
        total_rows: rows,
        height,
    };
    let tasks = tiles.len() * heads.kv_heads;
    (0..tasks).into_par_iter().for_each_on_team(|task| {
        x.add_keys(tiles[task / heads.kv_heads], task % heads.kv_heads);
    });
    Ok(())
}

/// Computes Δ = Σ_d do·o of every row and head.
fn compute_delta<T: Storage>(delta: &mut [f32], d_o: &[T], o: &[T], d: usize) {
    const ROWS: usize = 256;
    let parts = d_o.par_chunks(ROWS * d).zip(o.par_chunks(ROWS * d));
    delta.par_chunks_mut(ROWS).zip(parts).for_each_on_team(|(delta, (d_o, o))| {
        vectorize(
            #[inline(always)]
            || {
                let rows = d_o.chunks_exact(d).zip(o.chunks_exact(d));
                for (delta, (d_o, o)) in delta.iter_mut().zip(rows) {
                    *delta = sum2(d_o, o, |d_o, o| d_o.get() * o.get());
                }
            },
        );
    });
}

/// A tile of a task's keys and values, packed for the products that read them, and the sums of its gradients.
struct KeyTile {
    tile: RowTile,
    /// Keys as columns, values as columns, and the channels of keys as columns.
    k: PanelBuffer,
    v: PanelBuffer,
    k_channels: PanelBuffer,
    /// (keys, padded D).
    dk: AlignedVec<f32>,
    dv: AlignedVec<f32>,
}

/// P and dS of a tile of rows and a tile of keys: `(rows, TILE)` each, zero where masked.
struct ScoreTile {
    p: AlignedVec<f32>,
    ds: AlignedVec<f32>,
}

impl<T: Storage> Backward<'_, T> {
    /// Adds all that the keys of a task contribute: their dk and dv, and their part of dq.
    fn add_keys(&self, task: RowTile, kv_head: usize) {
        let (d, group) = (self.heads.head_dim, self.heads.heads / self.heads.kv_heads);
        let stride = padded_dim(d);
        let mut keys: Vec<KeyTile> = task.tiles().map(|tile| self.load_keys(tile, kv_head)).collect();
        let tile = || AlignedVec::scratch(TILE * TILE);
        let mut scores = ScoreTile { p: tile(), ds: tile() };
        // Rows of q and do, whose channels are columns of the products with dSᵀ and Pᵀ.
        let [mut q, mut d_o] = [(); 2].map(|()| PanelBuffer::new(Precision::of::<T>()));
        let mut own_sums = AlignedVec::scratch(TILE * stride);
        let turn = self.turns.begin();
        let seeing = RowTile { rows: task.end - task.row, ..task };
        for rows in seeing.tiles() {
            let sum = (rows.row / TILE + rows.document) * self.heads.kv_heads + kv_head;
            turn.wait(sum, task.position / self.height);
            for head in kv_head * group..(kv_head + 1) * group {
                let dq = match &self.sums {
                    // SAFETY: tasks have these rows and head one after the other, by their turns.
                    Some(sums) => unsafe {
                        sums.slice((head * self.total_rows + rows.row) * stride, rows.rows * stride)
                    },
                    None => &mut own_sums,
                };
                if task.position == 0 {
                    dq.fill(0.0);
                }
                for (panels, x) in [(&mut q, self.q), (&mut d_o, self.d_o)] {
                    let (x, width) = self.rows_of(x, rows, head);
                    panels.pack(&Matrix::mn_major(x, width), (d, rows.rows));
                }
                let packed = [self.q, self.d_o].map(|x| {
                    let (x, width) = self.rows_of(x, rows, head);
                    RowBuffer::pack(&Matrix::k_major(x, width), (rows.rows, d), Precision::of::<T>())
                });
                for keys in keys.iter_mut().filter(|keys| keys.tile.position < rows.end_position()) {
                    self.score(&mut scores, keys, &packed, (rows, head));
                    keys.add::<T>(&scores, [&q, &d_o], dq, rows.rows, d);
                }
                if rows.end_position() <= task.end_position() {
                    self.store(&self.dq, rows, self.heads.heads, head, dq);
                }
            }
            turn.pass(sum);
        }
        for keys in &keys {
            self.store(&self.dk, keys.tile, self.heads.kv_heads, kv_head, &keys.dk);
            self.store(&self.dv, keys.tile, self.heads.kv_heads, kv_head, &keys.dv);
        }
    }

    /// Loads and packs a tile of keys and values.
    fn load_keys(&self, tile: RowTile, kv_head: usize) -> KeyTile {
        let (d, precision) = (self.heads.head_dim, Precision::of::<T>());
        let (start, width) = ((tile.row * self.heads.kv_heads + kv_head) * d, self.heads.kv_heads * d);
        let pack = |b: Matrix, size| {
            let mut panels = PanelBuffer::new(precision);
            panels.pack(&b, size);
            panels
        };
        let [k, v] = [self.k, self.v].map(|x| Elements::of(&x[start..]));
        let sums = || AlignedVec::zeros(tile.rows * padded_dim(d));
        KeyTile {
            k: pack(Matrix::k_major(k, width), (tile.rows, d)),
            v: pack(Matrix::k_major(v, width), (tile.rows, d)),
            k_channels: pack(Matrix::mn_major(k, width), (d, tile.rows)),
            dk: sums(),
            dv: sums(),
            tile,
        }
    }

    /// Returns the elements of a (T, H·D) array from the first row of `rows` and the first channel of `head` on, and the
    /// distance of rows.
    fn rows_of<'a>(&self, x: &'a [T], rows: RowTile, head: usize) -> (Elements<'a>, usize) {
        let width = self.heads.heads * self.heads.head_dim;
        (Elements::of(&x[rows.row * width + head * self.heads.head_dim..]), width)
    }

    /// Computes P and dS of a tile of rows, whose q and do are packed, against a tile of keys.
    fn score(
        &self,
        out: &mut ScoreTile,
        keys: &KeyTile,
        [q, d_o]: &[RowBuffer; 2],
        (rows, head): (RowTile, usize),
    ) {
        let (d, n, from) = (self.heads.head_dim, keys.tile.rows, keys.tile.position);
        for (out, x, columns) in [(&mut out.p, q, &keys.k), (&mut out.ds, d_o, &keys.v)] {
            product::<T>((out, TILE, Start::Zero), (rows.rows, n), x.operand(), columns.operand(), d);
        }
        let scale = softmax_scale(self.heads);
        let stat = |x: &[f32], r: usize| x[(rows.row + r) * self.heads.heads + head];
        let ((p, _), (ds, _)) = (out.p.as_chunks_mut::<TILE>(), out.ds.as_chunks_mut::<TILE>());
        vectorize(
            #[inline(always)]
            || {
                for (r, (p, ds)) in p.iter_mut().zip(ds).enumerate().take(rows.rows) {
                    let visible = (rows.position + r + 1).saturating_sub(from).min(n);
                    let (lse, delta) = (stat(self.lse, r), stat(self.delta, r));
                    exp_each(&mut p[..visible.next_multiple_of(LANES)], |p| p * scale - lse);
                    ds.iter_mut().zip(&*p).for_each(|(ds, p)| *ds = p * (*ds - delta) * scale);
                    p[visible..].fill(0.0);
                    ds[visible..].fill(0.0);
                }
            },
        );
    }

    /// Rounds sums (rows, padded D) and stores them in rows of a `(T, heads·D)` array.
    fn store(&self, out: &DisjointSlice<T>, rows: RowTile, heads: usize, head: usize, sums: &[f32]) {
        let d = self.heads.head_dim;
        vectorize(
            #[inline(always)]
            || {
                for (r, sums) in sums.chunks_exact(padded_dim(d)).enumerate().take(rows.rows) {
                    // SAFETY: of the tasks that have these rows and head, only one stores them.
                    let out = unsafe { out.slice(((rows.row + r) * heads + head) * d, d) };
                    round_row(out, sums);
                }
            },
        );
    }
}

impl KeyTile {
    /// Adds the products of P and dS of a tile of `rows` rows: Pᵀ·do to dv, dSᵀ·q to dk, and dS·K to `dq`.
    fn add<T: Storage>(
        &mut self,
        scores: &ScoreTile,
        [q, d_o]: [&PanelBuffer; 2],
        dq: &mut [f32],
        rows: usize,
        d: usize,
    ) {
        let (keys, stride) = (self.tile.rows, padded_dim(d));
        let (p, ds) = (Elements::F32(&scores.p), Elements::F32(&scores.ds));
        // Transposed: the keys are the outer index, the rows are summed over.
        let add = |c, size, a, b: &PanelBuffer, depth| {
            product::<T>((c, stride, Start::C), size, a, b.operand(), depth);
        };
        add(&mut self.dv, (keys, d), Matrix::mn_major(p, TILE), d_o, rows);
        add(&mut self.dk, (keys, d), Matrix::mn_major(ds, TILE), q, rows);
        add(dq, (rows, d), Matrix::k_major(ds, TILE), &self.k_channels, keys);
    }
}
