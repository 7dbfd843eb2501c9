//! The CPU twin. A task owns a tile of query rows (for dk and dv, of keys) of one kv head.

mod backward;
mod forward;

pub(super) use backward::{SavedForward, backward};
pub(super) use forward::{forward, forward_tiles};

use super::Heads;
use crate::gemm::cpu::{Elements, Matrix, Precision, ProductTerm, accumulate};
use crate::simd::Storage;
use codelsi_engine::{Error, Result};

/// Query rows, and keys, of a tile.
pub(super) const TILE: usize = 64;

/// Up to [`TILE`] consecutive rows of one document.
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

/// Cuts documents into tiles that start at multiples of [`TILE`] positions of the document.
pub(super) fn tiles_of_documents(starts: &[i32], rows: usize) -> Result<Vec<RowTile>> {
    let covers_all = starts.first() == Some(&0) && starts.last() == Some(&(rows as i32));
    if !covers_all || !starts.is_sorted() {
        return Err(Error::new(format!("documents {starts:?} do not partition {rows} rows")));
    }
    let mut tiles = Vec::new();
    for (document, pair) in starts.windows(2).enumerate() {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        for row in (start..end).step_by(TILE) {
            let rows = TILE.min(end - row);
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
}

/// A tile of keys and values of one kv head, copied to be contiguous: `(TILE, D)` each.
#[derive(Default)]
pub(super) struct KvTile<T> {
    pub k: Vec<T>,
    pub v: Vec<T>,
}

impl<T: Storage> KvTile<T> {
    /// Loads positions `from..to` (at most [`TILE`]), `d` channels each.
    pub fn load(&mut self, kv: &KvSource<T>, (from, to): (usize, usize), d: usize) {
        self.k.clear();
        self.v.clear();
        for position in from..to {
            let start = (kv.row)(position) * d;
            self.k.extend_from_slice(&kv.k[start..][..d]);
            self.v.extend_from_slice(&kv.v[start..][..d]);
        }
    }
}

/// Returns a generic slice as the elements of a matrix.
pub(super) fn elements<T: Storage>(x: &[T]) -> Elements<'_> {
    match T::DTYPE {
        codelsi_engine::DType::BF16 => Elements::BF16(bytemuck::cast_slice(x)),
        _ => Elements::F32(bytemuck::cast_slice(x)),
    }
}

/// Returns the precision of products of storage type `T`.
pub(super) fn precision<T: Storage>() -> Precision {
    match T::DTYPE {
        codelsi_engine::DType::BF16 => Precision::BF16,
        _ => Precision::F32,
    }
}

/// Computes `c (m, n; stride) += a · b` over `depth`, on the calling thread.
pub(super) fn product<T: Storage>(
    c: &mut [f32],
    stride: usize,
    (m, n): (usize, usize),
    a: Matrix,
    b: Matrix,
    depth: usize,
) {
    accumulate(c, stride, (0, m), (0, n), &[ProductTerm { a, b, depth }], precision::<T>());
}

/// Returns the row stride of an f32 accumulator with `d` columns.
pub(super) fn padded_dim(d: usize) -> usize {
    d.next_multiple_of(32)
}

/// Returns the softmax scale 1/√D.
pub(super) fn softmax_scale(heads: Heads) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}
