//! The CPU twin. A task owns a block of rows (or, for dk and dv, of columns) of one kv head.

mod backward;
mod forward;

pub(super) use backward::{Forward, backward};
pub(super) use forward::{forward, forward_rows};

use super::Heads;
use crate::gemm::cpu::{Data, Operand, Precision, Segment, accumulate};
use crate::simd::Storage;
use codelsi_engine::{Error, Result};

/// Rows and columns of a tile.
pub(super) const TILE: usize = 64;

/// Up to [`TILE`] consecutive rows of one document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The first row, in the packed T.
    pub row: usize,
    pub rows: usize,
    /// The first row's position in its document.
    pub position: usize,
    /// The document's (or sequence's) index.
    pub document: usize,
    /// The document's first row, and its end.
    pub start: usize,
    pub end: usize,
}

/// Cuts documents into blocks that start at multiples of [`TILE`] of their own positions.
pub(super) fn blocks_of_documents(starts: &[i32], rows: usize) -> Result<Vec<Block>> {
    let whole = starts.first() == Some(&0) && starts.last() == Some(&(rows as i32));
    if !whole || !starts.is_sorted() {
        return Err(Error::new(format!("documents {starts:?} do not partition {rows} rows")));
    }
    let mut blocks = Vec::new();
    for (document, pair) in starts.windows(2).enumerate() {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        for row in (start..end).step_by(TILE) {
            let rows = TILE.min(end - row);
            blocks.push(Block { row, rows, position: row - start, document, start, end });
        }
    }
    Ok(blocks)
}

/// Keys and values: `row(position)` says where a position's channels are.
pub(super) struct Kv<'a, T> {
    /// `(rows, K·D)`.
    pub k: &'a [T],
    /// `(rows, K·D)`.
    pub v: &'a [T],
    pub width: usize,
    pub row: &'a (dyn Fn(usize) -> usize + Sync),
}

/// One tile of keys and values of a kv head, contiguous: `(TILE, D)` each.
#[derive(Default)]
pub(super) struct KvTile<T> {
    pub k: Vec<T>,
    pub v: Vec<T>,
}

impl<T: Storage> KvTile<T> {
    /// Loads positions `from..to` (at most [`TILE`]) of channels `channel..channel + d`.
    pub fn load(&mut self, kv: &Kv<T>, (from, to): (usize, usize), channel: usize, d: usize) {
        self.k.clear();
        self.v.clear();
        for position in from..to {
            let at = (kv.row)(position) * kv.width + channel;
            self.k.extend_from_slice(&kv.k[at..][..d]);
            self.v.extend_from_slice(&kv.v[at..][..d]);
        }
    }
}

/// A typed slice as an operand's data.
pub(super) fn data<T: Storage>(x: &[T]) -> Data<'_> {
    match T::DTYPE {
        codelsi_engine::DType::BF16 => Data::BF16(bytemuck::cast_slice(x)),
        _ => Data::F32(bytemuck::cast_slice(x)),
    }
}

/// Products are formed in the storage type's precision.
pub(super) fn precision<T: Storage>() -> Precision {
    match T::DTYPE {
        codelsi_engine::DType::BF16 => Precision::BF16,
        _ => Precision::F32,
    }
}

/// `c (m, n; stride) += a · b` over `depth`, on this thread.
pub(super) fn product<T: Storage>(
    c: &mut [f32],
    stride: usize,
    (m, n): (usize, usize),
    a: Operand,
    b: Operand,
    depth: usize,
) {
    accumulate(c, stride, (0, m), (0, n), &[Segment { a, b, depth }], precision::<T>());
}

/// Row stride of an f32 accumulator with `d` columns.
pub(super) fn padded(d: usize) -> usize {
    d.next_multiple_of(32)
}

/// 1/√D.
pub(super) fn scale(heads: Heads) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}
