//! The micro-kernels (BLIS): a register tile of up to 12 rows by 8 to 32 columns of C, one accumulator per element, k
//! ascending.
//!
//! Because the sum of an element is one chain of multiply-adds in ascending k, its bits depend neither on the number
//! of rows in the tile nor on where K was cut into blocks, nor on how B's words were stored.

use super::lanes::{Avx2, Avx512, Format, Lanes, Pairs, Portable, Wide, Widened};
use crate::simd::SimdLevel;

/// Columns of a packed panel of B.
pub(crate) const NR: usize = 32;
/// Words along k of a packed block (BLIS's KC): 1 KiB per row of A, so that the row offsets are constants.
pub(crate) const KC_WORDS: usize = 256;

/// Content of a 32-bit word of a packed panel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WordFormat {
    /// One f32: one step of k.
    F32,
    /// Two bf16: two steps of k, the even one in the low half.
    Bf16Pair,
}

impl WordFormat {
    /// Returns the number of steps of k in one word.
    pub(crate) fn k_per_word(self) -> usize {
        match self {
            WordFormat::F32 => 1,
            WordFormat::Bf16Pair => 2,
        }
    }
}

/// What a sum begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// Zero; C holds anything.
    Zero,
    /// What C holds.
    C,
}

/// A tile of C in memory.
#[derive(Clone, Copy)]
pub(crate) struct OutputTile {
    pub first: *mut f32,
    /// Distance of its rows.
    pub stride: usize,
    pub start: Start,
}

impl OutputTile {
    /// The tile that begins at a row and column of this one.
    ///
    /// # Safety
    /// The element lies inside the tile.
    unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: guaranteed by the caller.
        OutputTile { first: unsafe { self.first.add(row * self.stride + column) }, ..self }
    }
}

/// Computes `c = start + a · b` over `steps` words of B along k.
///
/// # Safety
/// For a tile of `rows` by `columns`: `a` holds `rows` rows of [`KC_WORDS`] words, `b` holds `steps` rows of
/// `columns` words, [`NR`] apart, `c` holds `rows` rows of `columns` values; `steps` words of B meet at most
/// [`KC_WORDS`] of A; and the machine has the instruction set that the micro-kernel was selected for.
type MicroKernel = unsafe fn(steps: usize, a: *const u32, b: *const u32, c: OutputTile);

/// The micro-kernels of one instruction set and pair of word formats.
pub(crate) struct MicroKernels {
    columns: usize,
    /// Micro-kernel `i` computes `i + 1` rows.
    by_rows: &'static [MicroKernel],
    /// Those of half of [`NR`] columns where `columns` is all of them: the rank of many an adapter is no more.
    narrow: &'static [MicroKernel],
    /// Micro-kernels of as few rows that compute [`NR`] columns, for as many as registers allow: more chains, where a row's
    /// own are too few to hide the latency of a multiply-add.
    few: &'static [MicroKernel],
}

impl MicroKernels {
    /// Selects the widest micro-kernels that `level` runs for words of A and of B: F32 with F32, pairs with pairs, or
    /// F32 with pairs, which are widened as they are read. Pairs of A need [`SimdLevel::Avx512Bf16`].
    pub(crate) fn select(level: SimdLevel, a: WordFormat, b: WordFormat) -> &'static MicroKernels {
        use WordFormat::{Bf16Pair, F32};
        match (a, b, level) {
            (Bf16Pair, ..) => &PAIRS_AVX512,
            (F32, F32, SimdLevel::Avx512 | SimdLevel::Avx512Bf16) => &F32_AVX512,
            (F32, F32, SimdLevel::Avx2) => &F32_AVX2,
            (F32, F32, SimdLevel::Portable) => &F32_PORTABLE,
            (F32, Bf16Pair, SimdLevel::Avx512 | SimdLevel::Avx512Bf16) => &WIDENED_AVX512,
            (F32, Bf16Pair, SimdLevel::Avx2) => &WIDENED_AVX2,
            (F32, Bf16Pair, SimdLevel::Portable) => &WIDENED_PORTABLE,
        }
    }

    /// Rows of the largest tile.
    pub(crate) fn max_rows(&self) -> usize {
        self.by_rows.len()
    }

    /// Computes `c = start + a · b` for `rows` by `columns`, at most [`NR`], one register tile after the other. The columns
    /// up to [`NR`] are scratch.
    ///
    /// # Safety
    /// As [`MicroKernel`], for `rows` by [`NR`].
    pub(crate) unsafe fn multiply(
        &self,
        (rows, columns): (usize, usize),
        steps: usize,
        a: *const u32,
        b: *const u32,
        c: OutputTile,
    ) {
        if let Some(kernel) = rows.checked_sub(1).and_then(|i| self.few.get(i)) {
            // SAFETY: guaranteed by the caller.
            return unsafe { kernel(steps, a, b, c) };
        }
        let by_rows = if columns <= NR / 2 && !self.narrow.is_empty() { self.narrow } else { self.by_rows };
        for row in (0..rows).step_by(by_rows.len()) {
            let kernel = by_rows[(rows - row).min(by_rows.len()) - 1];
            for column in (0..columns).step_by(self.columns) {
                // SAFETY: the sub-tile lies inside the caller's tile.
                unsafe { kernel(steps, a.add(row * KC_WORDS), b.add(column), c.at(row, column)) };
            }
        }
    }
}

static PAIRS_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &avx512_bf16_by_rows::<2>(),
    narrow: &avx512_bf16_by_rows::<1>(),
    few: &[],
};
static F32_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &avx512_by_rows::<Wide, 2>(),
    narrow: &avx512_by_rows::<Wide, 1>(),
    few: &[],
};
static WIDENED_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &avx512_by_rows::<Widened, 2>(),
    narrow: &avx512_by_rows::<Widened, 1>(),
    few: &[],
};
static F32_AVX2: MicroKernels = MicroKernels {
    columns: 16,
    by_rows: &[
        avx2::<Wide, 1, 2>,
        avx2::<Wide, 2, 2>,
        avx2::<Wide, 3, 2>,
        avx2::<Wide, 4, 2>,
        avx2::<Wide, 5, 2>,
        avx2::<Wide, 6, 2>,
    ],
    narrow: &[],
    few: &[avx2::<Wide, 1, 4>, avx2::<Wide, 2, 4>],
};
// Of sixteen registers, six rows would leave too few for widened words.
static WIDENED_AVX2: MicroKernels = MicroKernels {
    columns: 16,
    by_rows: &[
        avx2::<Widened, 1, 2>,
        avx2::<Widened, 2, 2>,
        avx2::<Widened, 3, 2>,
        avx2::<Widened, 4, 2>,
        avx2::<Widened, 5, 2>,
    ],
    narrow: &[],
    few: &[avx2::<Widened, 1, 4>],
};
static F32_PORTABLE: MicroKernels =
    MicroKernels { columns: 8, by_rows: &[portable::<Wide>], narrow: &[], few: &[] };
static WIDENED_PORTABLE: MicroKernels =
    MicroKernels { columns: 8, by_rows: &[portable::<Widened>], narrow: &[], few: &[] };

const fn avx512_bf16_by_rows<const VECTORS: usize>() -> [MicroKernel; 12] {
    [
        avx512_bf16::<1, VECTORS>,
        avx512_bf16::<2, VECTORS>,
        avx512_bf16::<3, VECTORS>,
        avx512_bf16::<4, VECTORS>,
        avx512_bf16::<5, VECTORS>,
        avx512_bf16::<6, VECTORS>,
        avx512_bf16::<7, VECTORS>,
        avx512_bf16::<8, VECTORS>,
        avx512_bf16::<9, VECTORS>,
        avx512_bf16::<10, VECTORS>,
        avx512_bf16::<11, VECTORS>,
        avx512_bf16::<12, VECTORS>,
    ]
}

const fn avx512_by_rows<F: Format<Avx512>, const VECTORS: usize>() -> [MicroKernel; 12] {
    [
        avx512::<F, 1, VECTORS>,
        avx512::<F, 2, VECTORS>,
        avx512::<F, 3, VECTORS>,
        avx512::<F, 4, VECTORS>,
        avx512::<F, 5, VECTORS>,
        avx512::<F, 6, VECTORS>,
        avx512::<F, 7, VECTORS>,
        avx512::<F, 8, VECTORS>,
        avx512::<F, 9, VECTORS>,
        avx512::<F, 10, VECTORS>,
        avx512::<F, 11, VECTORS>,
        avx512::<F, 12, VECTORS>,
    ]
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_bf16<const ROWS: usize, const VECTORS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: OutputTile,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx512, Pairs, ROWS, VECTORS>(steps, a, b, c) }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<F: Format<Avx512>, const ROWS: usize, const VECTORS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: OutputTile,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx512, F, ROWS, VECTORS>(steps, a, b, c) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<F: Format<Avx2>, const ROWS: usize, const VECTORS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: OutputTile,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx2, F, ROWS, VECTORS>(steps, a, b, c) }
}

unsafe fn portable<F: Format<Portable>>(steps: usize, a: *const u32, b: *const u32, c: OutputTile) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Portable, F, 1, 2>(steps, a, b, c) }
}

/// The micro-kernel of all instruction sets and formats: some vectors of columns.
///
/// # Safety
/// The contract of [`MicroKernel`]; the caller is compiled for the instruction set of `L` and `F`.
#[inline(always)]
unsafe fn tile<L: Lanes, F: Format<L>, const ROWS: usize, const VECTORS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: OutputTile,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let at = |m: usize, v: usize| c.first.add(m * c.stride + v * L::LANES);
        let mut acc = [[L::zero(); VECTORS]; ROWS];
        if c.start == Start::C {
            for (m, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = L::load(at(m, v));
                }
            }
        }
        for k in 0..steps {
            let row = b.add(k * NR).cast();
            let mut b = [L::load(row); VECTORS];
            for (v, b) in b.iter_mut().enumerate() {
                *b = L::load(row.add(v * L::LANES));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let a = a.add(m * KC_WORDS + k * F::A_WORDS);
                for (acc, &b) in acc.iter_mut().zip(&b) {
                    *acc = F::fold(*acc, a, b);
                }
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                L::store(at(m, v), acc);
            }
        }
    }
}
