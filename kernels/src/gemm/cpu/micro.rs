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

/// Computes `c += a · b` over `steps` words of B along k.
///
/// # Safety
/// For a tile of `rows` by `columns`: `a` holds `rows` rows of [`KC_WORDS`] words, `b` holds `steps` rows of
/// `columns` words, [`NR`] apart, `c` holds `rows` rows of `columns` values, `ldc` apart; `steps` words of B meet at most
/// [`KC_WORDS`] of A; and the machine has the instruction set that the micro-kernel was selected for.
type MicroKernel = unsafe fn(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize);

/// The micro-kernels of one instruction set and pair of word formats.
pub(crate) struct MicroKernels {
    columns: usize,
    /// Micro-kernel `i` computes `i + 1` rows.
    by_rows: &'static [MicroKernel],
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

    /// Computes `c += a · b` for `rows` by [`NR`], one register tile after the other.
    ///
    /// # Safety
    /// As [`MicroKernel`], for `rows` by [`NR`].
    pub(crate) unsafe fn multiply(
        &self,
        rows: usize,
        steps: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        ldc: usize,
    ) {
        if let Some(kernel) = rows.checked_sub(1).and_then(|i| self.few.get(i)) {
            // SAFETY: guaranteed by the caller.
            return unsafe { kernel(steps, a, b, c, ldc) };
        }
        for row in (0..rows).step_by(self.by_rows.len()) {
            let kernel = self.by_rows[(rows - row).min(self.by_rows.len()) - 1];
            for column in (0..NR).step_by(self.columns) {
                // SAFETY: the sub-tile lies inside the caller's tile.
                unsafe {
                    kernel(steps, a.add(row * KC_WORDS), b.add(column), c.add(row * ldc + column), ldc)
                };
            }
        }
    }
}

static PAIRS_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &[
        avx512_bf16::<1>,
        avx512_bf16::<2>,
        avx512_bf16::<3>,
        avx512_bf16::<4>,
        avx512_bf16::<5>,
        avx512_bf16::<6>,
        avx512_bf16::<7>,
        avx512_bf16::<8>,
        avx512_bf16::<9>,
        avx512_bf16::<10>,
        avx512_bf16::<11>,
        avx512_bf16::<12>,
    ],
    few: &[],
};

static F32_AVX512: MicroKernels = MicroKernels { columns: 32, by_rows: &avx512_by_rows::<Wide>(), few: &[] };
static WIDENED_AVX512: MicroKernels =
    MicroKernels { columns: 32, by_rows: &avx512_by_rows::<Widened>(), few: &[] };
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
    few: &[avx2::<Widened, 1, 4>],
};
static F32_PORTABLE: MicroKernels = MicroKernels { columns: 8, by_rows: &[portable::<Wide>], few: &[] };
static WIDENED_PORTABLE: MicroKernels =
    MicroKernels { columns: 8, by_rows: &[portable::<Widened>], few: &[] };

const fn avx512_by_rows<F: Format<Avx512>>() -> [MicroKernel; 12] {
    [
        avx512::<F, 1>,
        avx512::<F, 2>,
        avx512::<F, 3>,
        avx512::<F, 4>,
        avx512::<F, 5>,
        avx512::<F, 6>,
        avx512::<F, 7>,
        avx512::<F, 8>,
        avx512::<F, 9>,
        avx512::<F, 10>,
        avx512::<F, 11>,
        avx512::<F, 12>,
    ]
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_bf16<const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx512, Pairs, ROWS, 2>(steps, a, b, c, ldc) }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<F: Format<Avx512>, const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx512, F, ROWS, 2>(steps, a, b, c, ldc) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<F: Format<Avx2>, const ROWS: usize, const VECTORS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Avx2, F, ROWS, VECTORS>(steps, a, b, c, ldc) }
}

unsafe fn portable<F: Format<Portable>>(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe { tile::<Portable, F, 1, 2>(steps, a, b, c, ldc) }
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
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut acc = [[L::load(c); VECTORS]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = L::load(c.add(m * ldc + v * L::LANES));
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
                L::store(c.add(m * ldc + v * L::LANES), acc);
            }
        }
    }
}
