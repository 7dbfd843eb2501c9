//! Transposes of 16 by 16 words in registers: rows are read along k, columns are written.
//!
//! The functions are inlined into callers that are compiled for AVX-512 (F, BW, VL): as calls, their 16 registers would
//! pass through memory.

use super::pack::{Matrix, PackWindow};
use half::bf16;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Conversion of consecutive elements to 16 words of 32 bits.
pub(super) trait LoadWords {
    type Element;
    /// Elements that 16 words hold.
    const ELEMENTS: usize;

    /// Returns the words of the first `available` elements at `x`, zero beyond them.
    ///
    /// # Safety
    /// `min(available, ELEMENTS)` elements can be read at `x`; the caller is compiled for AVX-512.
    unsafe fn words(x: *const Self::Element, available: usize) -> __m512i;
}

/// f32, unchanged.
pub(super) struct LoadF32;
/// f32 rounded to bf16, as f32.
pub(super) struct LoadRounded;
/// bf16 widened to f32.
pub(super) struct LoadWidened;
/// Two bf16 per word.
pub(super) struct LoadPairs;
/// Two f32 per word, rounded to bf16.
pub(super) struct LoadRoundedPairs;

impl LoadWords for LoadF32 {
    type Element = f32;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: the mask keeps the load inside what is available.
        unsafe { _mm512_maskz_loadu_epi32(low_bits(available.min(16)) as u16, x.cast()) }
    }
}

impl LoadWords for LoadRounded {
    type Element = f32;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { round(LoadF32::words(x, available)) }
    }
}

impl LoadWords for LoadWidened {
    type Element = bf16;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const bf16, available: usize) -> __m512i {
        // SAFETY: as in `LoadF32`.
        unsafe {
            let half = _mm256_maskz_loadu_epi16(low_bits(available.min(16)) as u16, x.cast());
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
        }
    }
}

impl LoadWords for LoadPairs {
    type Element = bf16;
    const ELEMENTS: usize = 32;

    #[inline(always)]
    unsafe fn words(x: *const bf16, available: usize) -> __m512i {
        // SAFETY: as in `LoadF32`.
        unsafe { _mm512_maskz_loadu_epi16(low_bits(available), x.cast()) }
    }
}

impl LoadWords for LoadRoundedPairs {
    type Element = f32;
    const ELEMENTS: usize = 32;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: as in `LoadF32`, in two halves.
        unsafe {
            let low = LoadF32::words(x, available);
            let high = LoadF32::words(x.wrapping_add(16), available.saturating_sub(16));
            // Even words of the result come from `low`'s first, so the order of k is kept.
            let (low, high) = (_mm512_cvtepi32_epi16(bf16_bits(low)), _mm512_cvtepi32_epi16(bf16_bits(high)));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

/// Up to sixteen K-major rows of an operand, from the start of a window.
pub(super) struct RowGroup<L: LoadWords> {
    first: *const L::Element,
    stride: usize,
    count: usize,
    /// Elements of a row that can be read from `first` on.
    available: usize,
    load: PhantomData<L>,
}

impl<L: LoadWords> RowGroup<L> {
    /// The rows from `group` on of a window of `b`, whose elements are `x`; `b` must be K-major.
    ///
    /// # Panics
    /// When the rows do not lie inside of `x`.
    pub(super) fn new(x: &[L::Element], b: &Matrix, w: PackWindow, group: usize) -> Self {
        let count = w.count.saturating_sub(group).min(16);
        let first = (w.outer + group.min(w.count)) * b.outer_stride + w.k;
        let available = w.depth - w.k;
        if count > 0 {
            assert!(first + (count - 1) * b.outer_stride + available <= x.len(), "the operand ends early");
        }
        RowGroup {
            first: x.as_ptr().wrapping_add(first),
            stride: b.outer_stride,
            count,
            available,
            load: PhantomData,
        }
    }

    /// Returns words `step..step + 16` of every row, transposed: element `i` of the result holds word `step + i` of all
    /// rows. Words beyond the last row, and beyond the end of a row, are zero.
    ///
    /// # Safety
    /// The rows hold at least `step` words; the caller is compiled for AVX-512.
    #[inline(always)]
    pub(super) unsafe fn transposed(&self, step: usize) -> [__m512i; 16] {
        let skipped = step * L::ELEMENTS / 16;
        let available = self.available - skipped;
        // SAFETY: the rows were checked to be in the operand; loads are masked to them.
        unsafe {
            let mut block = [_mm512_setzero_si512(); 16];
            if self.count == 16 && available >= L::ELEMENTS {
                for (i, row) in block.iter_mut().enumerate() {
                    *row = L::words(self.first.add(i * self.stride + skipped), L::ELEMENTS);
                }
            } else {
                for (i, row) in block.iter_mut().enumerate().take(self.count) {
                    *row = L::words(self.first.add(i * self.stride + skipped), available);
                }
            }
            transpose(block)
        }
    }
}

/// Returns a mask of the lowest `n` bits, at most 32.
#[inline(always)]
pub(super) fn low_bits(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// Rounds f32 words to bf16, leaving them f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round(x: __m512i) -> __m512i {
    _mm512_slli_epi32::<16>(bf16_bits(x))
}

/// Rounds each f32 word to bf16, ties to even, and returns it in the word's low half. NaN stays NaN: its sum with itself is
/// quiet. (A constant in its place would be a masked load, which costs hundreds of cycles while its page is not mapped.)
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn bf16_bits(x: __m512i) -> __m512i {
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
    let x = _mm512_castsi512_ps(x);
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let quiet = _mm512_castps_si512(_mm512_add_ps(x, x));
    _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, is_nan, quiet))
}

/// Transposes 16 by 16 words: exchanges words, then pairs of words, then quarters of registers.
///
/// # Safety
/// The caller is compiled for AVX-512.
#[inline(always)]
pub(super) unsafe fn transpose(mut r: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut t = r;
        for i in (0..16).step_by(2) {
            t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        }
        for i in (0..16).step_by(4) {
            for j in 0..2 {
                r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
                r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
            }
        }
        // r[4g + c] now holds, in quarter q, rows 4g..4g+4 of column 4q + c.
        for c in 0..4 {
            let low =
                [_mm512_shuffle_i32x4::<0x44>(r[c], r[c + 4]), _mm512_shuffle_i32x4::<0xee>(r[c], r[c + 4])];
            let high = [
                _mm512_shuffle_i32x4::<0x44>(r[c + 8], r[c + 12]),
                _mm512_shuffle_i32x4::<0xee>(r[c + 8], r[c + 12]),
            ];
            t[c] = _mm512_shuffle_i32x4::<0x88>(low[0], high[0]);
            t[c + 4] = _mm512_shuffle_i32x4::<0xdd>(low[0], high[0]);
            t[c + 8] = _mm512_shuffle_i32x4::<0x88>(low[1], high[1]);
            t[c + 12] = _mm512_shuffle_i32x4::<0xdd>(low[1], high[1]);
        }
        t
    }
}
