//! Rows of A that are packed once for several products: the queries of attention for every tile of keys, a chunk of
//! activations for the adapters and weights of all linears that read it.

use super::micro::KC_WORDS;
use super::pack::{Elements, Matrix, PackWindow, Precision, pack_a};
use crate::aligned::AlignedVec;
use codelsi_engine::team::ForEachOnTeam;
use rayon::prelude::*;

/// An operand A in packed blocks along k, each (rows, 256 words).
#[derive(Clone, Copy)]
pub struct PackedRows<'a> {
    words: &'a [u32],
    rows: usize,
}

impl<'a> PackedRows<'a> {
    /// Returns the words from a block along k and a row on, of `blocks` blocks and `rows` rows.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn from(&self, (block, blocks): (usize, usize), (row, rows): (usize, usize)) -> &'a [u32] {
        let holds = row + rows <= self.rows && (block + blocks) * self.block_len() <= self.words.len();
        assert!(
            holds,
            "{} packed rows do not hold rows {row}..+{rows}, blocks {block}..+{blocks}",
            self.rows
        );
        &self.words[block * self.block_len() + row * KC_WORDS..]
    }

    /// Words from one block along k to the next.
    pub(super) fn block_len(&self) -> usize {
        self.rows * KC_WORDS
    }
}

/// An operand A that was packed for several products.
pub struct RowBuffer {
    words: AlignedVec<u32>,
    rows: usize,
}

impl RowBuffer {
    /// Packs `rows` rows of `a`, which is `depth` deep, for products of `precision`.
    pub fn pack(a: &Matrix, (rows, depth): (usize, usize), precision: Precision) -> Self {
        let format = precision.format();
        let steps = depth.div_ceil(format.k_per_word());
        let window = PackWindow { outer: 0, count: rows, k: 0, steps, depth };
        let blocks: Vec<PackWindow> = window.blocks(format).collect();
        let mut words = AlignedVec::scratch(blocks.len() * rows * KC_WORDS);
        words
            .par_chunks_exact_mut((rows * KC_WORDS).max(1))
            .zip(blocks)
            .for_each_on_team(|(words, block)| pack_a(words, a, block, precision));
        RowBuffer { words, rows }
    }

    /// The operand that was packed.
    pub fn operand(&self) -> Matrix<'_> {
        let rows = PackedRows { words: &self.words, rows: self.rows };
        // Of an operand that has packed rows nothing else is read.
        Matrix { rows: Some(rows), ..Matrix::k_major(Elements::F32(&[]), 0) }
    }
}
