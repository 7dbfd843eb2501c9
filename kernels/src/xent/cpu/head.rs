//! Parts that fused losses over a language model's head share on the CPU: the head in chunks of its rows, and tiles of logits.

use crate::gemm::cpu::panels::Panels;
use crate::gemm::cpu::{AccumulatorInit, Elements, Matrix, Precision, ProductTerm, multiply};
use crate::gemm::{elements, kept_panels, precision};
use crate::rows::TASK_SIZE;
use crate::simd::{Storage, vectorize};
use crate::xent::IGNORE_INDEX;
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Error, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Labelled tokens of a chunk: as many rows as a block of `gemm`.
pub const TOKEN_CHUNK: usize = 252;
/// Rows of the head of a chunk of the vocabulary.
pub const VOCAB_CHUNK: usize = 4096;

/// The rank's rows of the head, and how they are multiplied.
pub struct LmHead<'a> {
    data: Elements<'a>, // (V, C)
    panels: Option<Panels<'a>>,
    vocab: usize,
    /// Vocabulary id of its first row.
    pub first: usize,
    pub c: usize,
    pub precision: Precision,
}

impl<'a> LmHead<'a> {
    /// The rows `head` (rows, C), the first of them row `first` of the vocabulary, to be multiplied with `h`.
    pub fn new(head: &'a Tensor, first: usize, h: &Tensor) -> Result<Self> {
        let (vocab, c) = head.shape().as_matrix();
        let (data, panels) = (elements(head)?, kept_panels(head)?);
        Ok(LmHead { data, panels, vocab, first, c, precision: precision(h) })
    }

    /// Returns the chunks of its rows, in order.
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let vocab = self.vocab;
        (0..vocab).step_by(VOCAB_CHUNK).map(move |v| v..vocab.min(v + VOCAB_CHUNK))
    }

    /// Returns the row of `target`, if this rank holds it.
    pub fn row_of(&self, target: usize) -> Option<usize> {
        target.checked_sub(self.first).filter(|&row| row < self.vocab)
    }

    /// Returns the elements of a range of rows.
    pub fn rows(&self, rows: Range<usize>) -> Elements<'a> {
        let part = rows.start * self.c..rows.end * self.c;
        match self.data {
            Elements::F32(w) => Elements::F32(&w[part]),
            Elements::BF16(w) => Elements::BF16(&w[part]),
        }
    }

    /// Computes z (n, chunk) = x (n, C) · head_chunkᵀ.
    pub fn logits(&self, z: &mut [f32], n: usize, x: Elements, chunk: Range<usize>) {
        let size = (n, chunk.len());
        let a = Matrix::k_major(x, self.c);
        let panels = self.panels.map(|panels| panels.skip(chunk.start));
        let b = Matrix { panels, ..Matrix::k_major(self.rows(chunk), self.c) };
        multiply(z, size, AccumulatorInit::Zero, &[ProductTerm { a, b, depth: self.c }], self.precision);
    }
}

/// Checks that every target is in the vocabulary, and that `labelled` tokens have one.
///
/// # Errors
/// The first target that is not, or the number of labels.
pub fn check_targets(targets: &[i32], vocab: usize, labelled: usize) -> Result<()> {
    let count = targets.iter().filter(|&&y| y != IGNORE_INDEX).count();
    if count != labelled {
        return Err(Error::new(format!("{count} tokens have a label, but the targets declare {labelled}")));
    }
    match targets.iter().position(|&y| y != IGNORE_INDEX && (y < 0 || y as usize >= vocab)) {
        Some(t) => {
            let target = targets[t];
            Err(Error::new(format!("target {target} of token {t} is outside the vocabulary of {vocab}")))
        }
        None => Ok(()),
    }
}

/// Copies the given rows of h (T, C) to x, one after the other.
pub fn gather<E: Storage>(x: &mut [E], h: &[E], rows: impl Iterator<Item = usize>, c: usize) {
    for (x, t) in x.chunks_exact_mut(c).zip(rows) {
        x.copy_from_slice(&h[t * c..][..c]);
    }
}

/// Stores p = z, rounded to the storage type of p.
pub fn store_rounded<E: Storage>(p: &mut [E], z: &[f32]) {
    p.par_chunks_mut(TASK_SIZE).zip(z.par_chunks(TASK_SIZE)).for_each_on_team(|(p, z)| {
        vectorize(
            #[inline(always)]
            || p.iter_mut().zip(z).for_each(|(p, &z)| *p = E::put(z)),
        );
    });
}
