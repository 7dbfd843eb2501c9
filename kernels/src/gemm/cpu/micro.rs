//! The micro-kernels (BLIS): a register tile of up to 12 rows by 8 to 32 columns of C, one accumulator per element, k
//! ascending.
//!
//! Because the sum of an element is one chain of multiply-adds in ascending k, its bits depend neither on the number
//! of rows in the tile nor on where K was cut into blocks.

use crate::simd::SimdLevel;
use std::arch::x86_64::*;

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

/// Computes `c += a · b` over `steps` words along k.
///
/// # Safety
/// For a tile of `rows` by `columns`: `a` holds `rows` rows of [`KC_WORDS`] words, `b` holds `steps` rows of
/// `columns` words, [`NR`] apart, `c` holds `rows` rows of `columns` values, `ldc` apart; `steps <= KC_WORDS`;
/// and the machine has the instruction set that the micro-kernel was selected for.
type MicroKernel = unsafe fn(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize);

/// The micro-kernels of one instruction set and word format.
pub(crate) struct MicroKernels {
    columns: usize,
    /// Micro-kernel `i` computes `i + 1` rows.
    by_rows: &'static [MicroKernel],
}

impl MicroKernels {
    /// Selects the widest micro-kernels that `level` runs. [`WordFormat::Bf16Pair`] needs [`SimdLevel::Avx512Bf16`].
    pub(crate) fn select(level: SimdLevel, format: WordFormat) -> &'static MicroKernels {
        match (format, level) {
            (WordFormat::Bf16Pair, _) => &BF16_AVX512,
            (WordFormat::F32, SimdLevel::Avx512 | SimdLevel::Avx512Bf16) => &F32_AVX512,
            (WordFormat::F32, SimdLevel::Avx2) => &F32_AVX2,
            (WordFormat::F32, SimdLevel::Portable) => &F32_PORTABLE,
        }
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

static BF16_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &[
        bf16_avx512::<1>,
        bf16_avx512::<2>,
        bf16_avx512::<3>,
        bf16_avx512::<4>,
        bf16_avx512::<5>,
        bf16_avx512::<6>,
        bf16_avx512::<7>,
        bf16_avx512::<8>,
        bf16_avx512::<9>,
        bf16_avx512::<10>,
        bf16_avx512::<11>,
        bf16_avx512::<12>,
    ],
};

static F32_AVX512: MicroKernels = MicroKernels {
    columns: 32,
    by_rows: &[
        f32_avx512::<1>,
        f32_avx512::<2>,
        f32_avx512::<3>,
        f32_avx512::<4>,
        f32_avx512::<5>,
        f32_avx512::<6>,
        f32_avx512::<7>,
        f32_avx512::<8>,
        f32_avx512::<9>,
        f32_avx512::<10>,
        f32_avx512::<11>,
        f32_avx512::<12>,
    ],
};

static F32_AVX2: MicroKernels = MicroKernels {
    columns: 16,
    by_rows: &[f32_avx2::<1>, f32_avx2::<2>, f32_avx2::<3>, f32_avx2::<4>, f32_avx2::<5>, f32_avx2::<6>],
};

static F32_PORTABLE: MicroKernels = MicroKernels { columns: 8, by_rows: &[f32_portable] };

/// Returns `acc + x · b`, each word an f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fma(acc: __m512, x: __m512i, b: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(b), acc)
}

/// Returns `acc + x · b`, each word a pair of bf16 whose dot product is added.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn dot(acc: __m512, x: __m512i, b: __m512i) -> __m512 {
    _mm512_dpbf16_ps(acc, pairs(x), pairs(b))
}

/// Reinterprets words as pairs of bf16.
#[inline(always)]
fn pairs(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_avx512<const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the contract of [`MicroKernel`].
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm512_loadu_ps(c.add(m * ldc)), _mm512_loadu_ps(c.add(m * ldc + 16))];
        }
        for k in 0..steps {
            let b = b.add(k * NR);
            let b = [pairs(_mm512_loadu_si512(b.cast())), pairs(_mm512_loadu_si512(b.add(16).cast()))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = pairs(_mm512_set1_epi32(*a.add(m * KC_WORDS + k) as i32));
                acc[0] = _mm512_dpbf16_ps(acc[0], x, b[0]);
                acc[1] = _mm512_dpbf16_ps(acc[1], x, b[1]);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(m * ldc), acc[0]);
            _mm512_storeu_ps(c.add(m * ldc + 16), acc[1]);
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn f32_avx512<const ROWS: usize>(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize) {
    let (a, b) = (a.cast::<f32>(), b.cast::<f32>());
    // SAFETY: the contract of [`MicroKernel`].
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm512_loadu_ps(c.add(m * ldc)), _mm512_loadu_ps(c.add(m * ldc + 16))];
        }
        for k in 0..steps {
            let b = [_mm512_loadu_ps(b.add(k * NR)), _mm512_loadu_ps(b.add(k * NR + 16))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(m * KC_WORDS + k));
                acc[0] = _mm512_fmadd_ps(x, b[0], acc[0]);
                acc[1] = _mm512_fmadd_ps(x, b[1], acc[1]);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(m * ldc), acc[0]);
            _mm512_storeu_ps(c.add(m * ldc + 16), acc[1]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_avx2<const ROWS: usize>(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize) {
    let (a, b) = (a.cast::<f32>(), b.cast::<f32>());
    // SAFETY: the contract of [`MicroKernel`].
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm256_loadu_ps(c.add(m * ldc)), _mm256_loadu_ps(c.add(m * ldc + 8))];
        }
        for k in 0..steps {
            let b = [_mm256_loadu_ps(b.add(k * NR)), _mm256_loadu_ps(b.add(k * NR + 8))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(m * KC_WORDS + k));
                acc[0] = _mm256_fmadd_ps(x, b[0], acc[0]);
                acc[1] = _mm256_fmadd_ps(x, b[1], acc[1]);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            _mm256_storeu_ps(c.add(m * ldc), acc[0]);
            _mm256_storeu_ps(c.add(m * ldc + 8), acc[1]);
        }
    }
}

unsafe fn f32_portable(steps: usize, a: *const u32, b: *const u32, c: *mut f32, _: usize) {
    // SAFETY: the contract of [`MicroKernel`]; words of this format are f32, and one row needs no `ldc`.
    unsafe {
        let c = std::slice::from_raw_parts_mut(c, 8);
        let mut acc = [0.0f32; 8];
        acc.copy_from_slice(c);
        for k in 0..steps {
            let x = f32::from_bits(*a.add(k));
            let b = std::slice::from_raw_parts(b.add(k * NR), 8);
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += x * f32::from_bits(*b);
            }
        }
        c.copy_from_slice(&acc);
    }
}
