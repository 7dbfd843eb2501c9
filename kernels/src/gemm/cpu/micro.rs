//! The innermost tiles: some rows by 16 or 32 columns of C, one accumulator an element, k ascending.
//!
//! Because an element's sum is one chain of multiply-adds in the order of k, its bits do not depend on how many
//! rows ride along, nor on how K was cut into chunks.

use crate::simd::Level;
use std::arch::x86_64::*;

/// Columns of a packed panel of B.
pub(crate) const NR: usize = 32;
/// Steps of k in a packed chunk: 1 KiB a row of A, so that the rows' offsets are constants.
pub(crate) const STEPS: usize = 256;

/// How the 32-bit words of packed panels are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// One f32 a step.
    Single,
    /// Two bf16 a step, k even in the low half.
    Pairs,
}

/// `c += a · b` over `steps` words of k.
///
/// # Safety
/// For a tile of `rows` by `columns`: `a` holds `rows` rows of [`STEPS`] words, `b` holds `steps` rows of
/// `columns` words, [`NR`] apart, `c` holds `rows` rows of `columns` values, `ldc` apart; `steps <= STEPS`;
/// and the machine has the instruction set that the tile was chosen for.
type Tile = unsafe fn(steps: usize, a: *const u32, b: *const u32, c: *mut f32, ldc: usize);

/// The tiles of one instruction set and layout.
pub(crate) struct Tiles {
    columns: usize,
    /// The tile of `i + 1` rows.
    by_rows: &'static [Tile],
}

impl Tiles {
    /// The widest tiles that `level` runs. [`Layout::Pairs`] needs [`Level::Avx512Bf16`].
    pub(crate) fn select(level: Level, layout: Layout) -> &'static Tiles {
        match (layout, level) {
            (Layout::Pairs, _) => &PAIRS_AVX512,
            (Layout::Single, Level::Avx512 | Level::Avx512Bf16) => &SINGLE_AVX512,
            (Layout::Single, Level::Avx2) => &SINGLE_AVX2,
            (Layout::Single, Level::Portable) => &SINGLE_PORTABLE,
        }
    }

    /// `c += a · b` for `rows` by [`NR`], tile by tile.
    ///
    /// # Safety
    /// As [`Tile`], for `rows` by [`NR`].
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
            let tile = self.by_rows[(rows - row).min(self.by_rows.len()) - 1];
            for column in (0..NR).step_by(self.columns) {
                // SAFETY: the sub-tile lies inside the caller's tile.
                unsafe { tile(steps, a.add(row * STEPS), b.add(column), c.add(row * ldc + column), ldc) };
            }
        }
    }
}

static PAIRS_AVX512: Tiles = Tiles {
    columns: 32,
    by_rows: &[
        pairs_avx512::<1>,
        pairs_avx512::<2>,
        pairs_avx512::<3>,
        pairs_avx512::<4>,
        pairs_avx512::<5>,
        pairs_avx512::<6>,
        pairs_avx512::<7>,
        pairs_avx512::<8>,
        pairs_avx512::<9>,
        pairs_avx512::<10>,
        pairs_avx512::<11>,
        pairs_avx512::<12>,
    ],
};

static SINGLE_AVX512: Tiles = Tiles {
    columns: 32,
    by_rows: &[
        single_avx512::<1>,
        single_avx512::<2>,
        single_avx512::<3>,
        single_avx512::<4>,
        single_avx512::<5>,
        single_avx512::<6>,
        single_avx512::<7>,
        single_avx512::<8>,
        single_avx512::<9>,
        single_avx512::<10>,
        single_avx512::<11>,
        single_avx512::<12>,
    ],
};

static SINGLE_AVX2: Tiles = Tiles {
    columns: 16,
    by_rows: &[
        single_avx2::<1>,
        single_avx2::<2>,
        single_avx2::<3>,
        single_avx2::<4>,
        single_avx2::<5>,
        single_avx2::<6>,
    ],
};

static SINGLE_PORTABLE: Tiles = Tiles { columns: 8, by_rows: &[single_portable] };

/// `acc + x · b`, word by word as f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fma(acc: __m512, x: __m512i, b: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(b), acc)
}

/// `acc + x · b`, word by word as the dot product of two pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn dot(acc: __m512, x: __m512i, b: __m512i) -> __m512 {
    _mm512_dpbf16_ps(acc, pairs(x), pairs(b))
}

/// Words as pairs of bf16.
#[inline(always)]
fn pairs(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_avx512<const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the contract of [`Tile`].
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm512_loadu_ps(c.add(m * ldc)), _mm512_loadu_ps(c.add(m * ldc + 16))];
        }
        for k in 0..steps {
            let b = b.add(k * NR);
            let b = [pairs(_mm512_loadu_si512(b.cast())), pairs(_mm512_loadu_si512(b.add(16).cast()))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = pairs(_mm512_set1_epi32(*a.add(m * STEPS + k) as i32));
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
unsafe fn single_avx512<const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    let (a, b) = (a.cast::<f32>(), b.cast::<f32>());
    // SAFETY: the contract of [`Tile`].
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm512_loadu_ps(c.add(m * ldc)), _mm512_loadu_ps(c.add(m * ldc + 16))];
        }
        for k in 0..steps {
            let b = [_mm512_loadu_ps(b.add(k * NR)), _mm512_loadu_ps(b.add(k * NR + 16))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(m * STEPS + k));
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
unsafe fn single_avx2<const ROWS: usize>(
    steps: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    ldc: usize,
) {
    let (a, b) = (a.cast::<f32>(), b.cast::<f32>());
    // SAFETY: the contract of [`Tile`].
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        for (m, acc) in acc.iter_mut().enumerate() {
            *acc = [_mm256_loadu_ps(c.add(m * ldc)), _mm256_loadu_ps(c.add(m * ldc + 8))];
        }
        for k in 0..steps {
            let b = [_mm256_loadu_ps(b.add(k * NR)), _mm256_loadu_ps(b.add(k * NR + 8))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(m * STEPS + k));
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

unsafe fn single_portable(steps: usize, a: *const u32, b: *const u32, c: *mut f32, _: usize) {
    // SAFETY: the contract of [`Tile`]; words of this layout are f32, and one row needs no `ldc`.
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
