//! Panels that are kept: the words of B in the order in which micro-kernels read them, so that a product streams them and
//! packs nothing. Weights keep theirs; a tile of keys or values has them for the many products that it is in.
//!
//! A panel holds 32 columns of B (rows of a weight), one after the other along k: (⌈N / 32⌉, words, 32). bf16 weights are kept
//! as pairs, on every instruction set: as many bytes as the weight has.

use super::micro::{NR, WordFormat};
use super::pack::{Elements, Matrix, PackWindow, Precision, pack_b};
use crate::aligned::AlignedVec;
use crate::simd::vectorize;
use codelsi_engine::team::ForEachOnTeam;
use rayon::prelude::*;

/// An operand B in panels.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    words: &'a [u32],
    format: WordFormat,
    /// True if every element is a bf16.
    is_bf16: bool,
    /// Words of a panel along k.
    steps: usize,
}

impl<'a> Panels<'a> {
    /// The panels of a weight of `depth` columns, as [`fill`] wrote them.
    pub fn new(data: Elements<'a>, depth: usize) -> Self {
        let (words, format) = match data {
            Elements::F32(x) => (bytemuck::cast_slice(x), WordFormat::F32),
            Elements::BF16(x) => (bytemuck::cast_slice(x), WordFormat::Bf16Pair),
        };
        let is_bf16 = format == WordFormat::Bf16Pair;
        Panels { words, format, is_bf16, steps: depth / format.k_per_word() }
    }

    /// The panels from row `row` of the weight on, a multiple of 32.
    pub fn skip(self, row: usize) -> Self {
        assert!(row.is_multiple_of(NR), "a panel begins with a multiple of {NR}, not with row {row}");
        Panels { words: &self.words[row * self.steps..], ..self }
    }

    /// True if they hold what products of `precision` multiply: f32 weights would be rounded under bf16.
    pub(super) fn serve(&self, precision: Precision) -> bool {
        self.is_bf16 || precision == Precision::F32
    }

    /// The format of the words.
    pub(super) fn format(&self) -> WordFormat {
        self.format
    }

    /// Returns the words from `w.k` on of the panel that begins with row `w.outer`.
    pub(super) fn from(&self, w: PackWindow) -> &'a [u32] {
        let panel = &self.words[w.outer / NR * self.steps * NR..][..self.steps * NR];
        &panel[w.k / self.format.k_per_word() * NR..]
    }
}

/// An operand of several products, packed for them.
pub struct PanelBuffer {
    words: AlignedVec<u32>,
    /// Words of a panel along k.
    steps: usize,
    precision: Precision,
}

impl PanelBuffer {
    /// Returns an empty buffer for products of `precision`.
    pub fn new(precision: Precision) -> Self {
        PanelBuffer { words: AlignedVec::scratch(0), steps: 0, precision }
    }

    /// Packs the `columns` columns of `b`, which is `depth` deep, on the calling thread.
    pub fn pack(&mut self, b: &Matrix, (columns, depth): (usize, usize)) {
        let format = self.precision.format();
        let steps = depth.div_ceil(format.k_per_word());
        self.steps = steps;
        self.words.resize(columns.next_multiple_of(NR) * steps);
        for (panel, words) in self.words.chunks_exact_mut((steps * NR).max(1)).enumerate() {
            let outer = panel * NR;
            let w = PackWindow { outer, count: NR.min(columns - outer), k: 0, steps, depth };
            pack_b(words, b, w, self.precision, format);
        }
    }

    /// The operand that was packed.
    pub fn operand(&self) -> Matrix<'_> {
        let (format, is_bf16) = (self.precision.format(), self.precision == Precision::BF16);
        let panels = Panels { words: &self.words, format, is_bf16, steps: self.steps };
        // Of an operand that has panels nothing else is read.
        Matrix { panels: Some(panels), ..Matrix::k_major(Elements::F32(&[]), 0) }
    }
}

/// Returns the number of elements of the panels of a weight (N, K); `None` if they are not kept, because pairs would
/// straddle rows.
pub fn elements((n, k): (usize, usize)) -> Option<usize> {
    k.is_multiple_of(2).then(|| n.next_multiple_of(NR) * k)
}

/// Writes the panels of the weight `w` (N, K), whose elements are K-major, to `to`, as long as [`elements`] says.
pub fn fill(to: &mut [u32], w: Elements, (n, k): (usize, usize)) {
    let (format, precision) = match w {
        Elements::F32(_) => (WordFormat::F32, Precision::F32),
        Elements::BF16(_) => (WordFormat::Bf16Pair, Precision::BF16),
    };
    let (b, steps) = (Matrix::k_major(w, k), k / format.k_per_word());
    to.par_chunks_mut((steps * NR).max(1)).enumerate().for_each_on_team(|(panel, to)| {
        let outer = panel * NR;
        let w = PackWindow { outer, count: NR.min(n - outer), k: 0, steps, depth: k };
        pack_b(to, &b, w, precision, format);
    });
}

/// Widens pairs of a panel to the f32 words `to`, two rows of [`NR`] for each row of pairs.
pub(super) fn widen(to: &mut [u32], pairs: &[u32]) {
    vectorize(
        #[inline(always)]
        || {
            for (to, pairs) in to.chunks_exact_mut(2 * NR).zip(pairs.chunks_exact(NR)) {
                let (even, odd) = to.split_at_mut(NR);
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                    (*even, *odd) = (pair << 16, pair & 0xffff_0000);
                }
            }
        },
    );
}
