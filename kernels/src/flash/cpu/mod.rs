//! The CPU twin. Forward, a task owns query rows of one kv head: for each tile of keys and values, whose panels are packed
//! once, it goes through its rows tile by tile. Backward, it owns keys. No size of a task changes a bit.

mod backward;
mod forward;
mod turns;

pub(super) use backward::{SavedForward, backward};
pub(super) use forward::{forward, forward_tiles};

use super::Heads;
use crate::gemm::cpu::{Elements, Matrix, Precision, ProductTerm, Start, multiply_block};
use crate::simd::Storage;
use codelsi_engine::{Error, Result, team};

/// Query rows, and keys, of a tile.
const TILE: usize = 64;

/// Returns the number of rows of a task, a multiple of [`TILE`]: so many that packing keys and values is little beside their
/// products, and so few that all threads have work.
pub(super) fn rows_of_task(rows: usize, heads: Heads) -> usize {
    const TASKS_PER_THREAD: usize = 4;
    const PRODUCTS_PER_TILE: usize = 4;
    let tasks_per_head = (TASKS_PER_THREAD * team::threads()).div_ceil(heads.kv_heads);
    let most = PRODUCTS_PER_TILE.div_ceil(heads.heads / heads.kv_heads);
    (rows / tasks_per_head / TILE).clamp(1, most) * TILE
}

/// Consecutive rows of one document.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTile {
    /// Index of the first row among the T packed rows.
    pub row: usize,
    pub rows: usize,
    /// Position of the first row in its document.
    pub position: usize,
    /// Index of the document, or of the sequence over pages.
    pub document: usize,
    /// First row of the document, and one past its last; 0 over pages.
    pub start: usize,
    pub end: usize,
}

impl RowTile {
    /// Position after the last row's.
    fn end_position(&self) -> usize {
        self.position + self.rows
    }

    /// Cuts the rows into tiles at multiples of [`TILE`] positions.
    fn tiles(self) -> impl Iterator<Item = RowTile> {
        let last = self.end_position();
        let starts = std::iter::once(self.position).chain((self.position / TILE + 1..).map(|i| i * TILE));
        starts.take_while(move |&position| position < last).map(move |position| {
            let rows = (position / TILE + 1) * TILE - position;
            let row = self.row + position - self.position;
            RowTile { row, position, rows: rows.min(last - position), ..self }
        })
    }
}

/// Cuts documents at multiples of `height` positions of each.
fn tiles_of_documents(starts: &[i32], rows: usize, height: usize) -> Result<Vec<RowTile>> {
    let covers_all = starts.first() == Some(&0) && starts.last() == Some(&(rows as i32));
    if !covers_all || !starts.is_sorted() {
        return Err(Error::new(format!("documents {starts:?} do not partition {rows} rows")));
    }
    let mut tiles = Vec::new();
    for (document, pair) in starts.windows(2).enumerate() {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        for row in (start..end).step_by(height) {
            let rows = height.min(end - row);
            tiles.push(RowTile { row, rows, position: row - start, document, start, end });
        }
    }
    Ok(tiles)
}

/// Keys and values of one kv head of a document or sequence; `row(position)` is the row that holds a position.
pub(super) struct KvSource<'a, T> {
    /// `(rows, D)`, with rows of all kv heads.
    pub k: &'a [T],
    /// `(rows, D)`.
    pub v: &'a [T],
    pub row: &'a (dyn Fn(usize) -> usize + Sync),
    /// Distance of the rows of neighbouring positions, where it is the same for all.
    pub stride: Option<usize>,
}

/// Memory for a tile of keys and values of one kv head: `(TILE, D)` each.
#[derive(Default)]
struct KvTile<T> {
    k: Vec<T>,
    v: Vec<T>,
}

impl<T: Storage> KvTile<T> {
    /// Returns the keys at positions `from..to` (at most [`TILE`]) as columns, D deep, and the channels of their values as
    /// columns, as deep as there are keys; rows that lie apart are copied to be neighbours.
    fn load<'a>(&'a mut self, kv: &KvSource<'a, T>, (from, to): (usize, usize), d: usize) -> [Matrix<'a>; 2] {
        let (k, v, stride) = match kv.stride {
            Some(stride) => {
                let first = (kv.row)(from) * d;
                (&kv.k[first..], &kv.v[first..], stride * d)
            }
            None => {
                self.k.clear();
                self.v.clear();
                for position in from..to {
                    let start = (kv.row)(position) * d;
                    self.k.extend_from_slice(&kv.k[start..][..d]);
                    self.v.extend_from_slice(&kv.v[start..][..d]);
                }
                (&self.k[..], &self.v[..], d)
            }
        };
        [Matrix::k_major(Elements::of(k), stride), Matrix::mn_major(Elements::of(v), stride)]
    }
}

/// Computes `c (m, n; stride) = start + a · b` over `depth`, on the calling thread.
fn product<T: Storage>(
    (c, stride, start): (&mut [f32], usize, Start),
    (m, n): (usize, usize),
    a: Matrix,
    b: Matrix,
    depth: usize,
) {
    let term = ProductTerm { a, b, depth };
    multiply_block((c, stride, start), (0, m), (0, n), &[term], Precision::of::<T>());
}

/// Returns the row stride of an f32 accumulator with `d` columns.
pub(super) fn padded_dim(d: usize) -> usize {
    d.next_multiple_of(32)
}

/// Returns the softmax scale 1/√D.
pub(super) fn softmax_scale(heads: Heads) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}
