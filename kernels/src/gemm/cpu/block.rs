//! Blocks of 16 by 16 words, read along k and transposed in registers.
//!
//! The functions are inlined into callers that are compiled for AVX-512 (F, BW, VL): as calls, their blocks would pass
//! through memory.

use super::pack::{Operand, Window};
use half::bf16;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// How 16 words of 32 bits are made from elements that follow each other in memory.
pub(super) trait Load {
    type Element;
    /// The elements of 16 words.
    const ELEMENTS: usize;

    /// The words of the first `available` elements at `x`, zero beyond them.
    ///
    /// # Safety
    /// That many elements are there, or [`Load::ELEMENTS`]; the caller is compiled for AVX-512.
    unsafe fn words(x: *const Self::Element, available: usize) -> __m512i;
}

/// f32 as they are.
pub(super) struct Single;
/// f32 rounded to bf16, as f32.
pub(super) struct Rounded32;
/// bf16 as f32.
pub(super) struct Widened;
/// Two bf16 a word.
pub(super) struct Pairs;
/// Two f32 a word, rounded to bf16.
pub(super) struct RoundedPairs;

impl Load for Single {
    type Element = f32;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: the mask keeps the load inside what is available.
        unsafe { _mm512_maskz_loadu_epi32(low_bits(available.min(16)) as u16, x.cast()) }
    }
}

impl Load for Rounded32 {
    type Element = f32;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { round(Single::words(x, available)) }
    }
}

impl Load for Widened {
    type Element = bf16;
    const ELEMENTS: usize = 16;

    #[inline(always)]
    unsafe fn words(x: *const bf16, available: usize) -> __m512i {
        // SAFETY: as in `Single`.
        unsafe {
            let half = _mm256_maskz_loadu_epi16(low_bits(available.min(16)) as u16, x.cast());
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
        }
    }
}

impl Load for Pairs {
    type Element = bf16;
    const ELEMENTS: usize = 32;

    #[inline(always)]
    unsafe fn words(x: *const bf16, available: usize) -> __m512i {
        // SAFETY: as in `Single`.
        unsafe { _mm512_maskz_loadu_epi16(low_bits(available), x.cast()) }
    }
}

impl Load for RoundedPairs {
    type Element = f32;
    const ELEMENTS: usize = 32;

    #[inline(always)]
    unsafe fn words(x: *const f32, available: usize) -> __m512i {
        // SAFETY: as in `Single`, in two halves.
        unsafe {
            let low = Single::words(x, available);
            let high = Single::words(x.wrapping_add(16), available.saturating_sub(16));
            // Even words of the result come from `low`'s first, so the order of k is kept.
            let (low, high) = (_mm512_cvtepi32_epi16(high_half(low)), _mm512_cvtepi32_epi16(high_half(high)));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

/// Up to sixteen rows of an operand along k, from the start of a window.
pub(super) struct Rows<L: Load> {
    first: *const L::Element,
    stride: usize,
    count: usize,
    /// Elements of a row from `first` on.
    available: usize,
    load: PhantomData<L>,
}

impl<L: Load> Rows<L> {
    /// The rows from `group` on of a window of `b`, whose elements are `x`. k must run along memory.
    ///
    /// # Panics
    /// When the rows leave `x`.
    pub(super) fn of(x: &[L::Element], b: &Operand, w: Window, group: usize) -> Self {
        let count = w.count.saturating_sub(group).min(16);
        let first = (w.outer + group.min(w.count)) * b.outer_stride + w.k;
        let available = w.depth - w.k;
        if count > 0 {
            assert!(first + (count - 1) * b.outer_stride + available <= x.len(), "the operand ends early");
        }
        Rows {
            first: x.as_ptr().wrapping_add(first),
            stride: b.outer_stride,
            count,
            available,
            load: PhantomData,
        }
    }

    /// Words `step..step + 16` of every row: element `i` of the result holds word `step + i` of all. Beyond the rows,
    /// and beyond their ends, words are zero.
    ///
    /// # Safety
    /// `step` words are in the rows; the caller is compiled for AVX-512.
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

fn low_bits(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// f32 words rounded to bf16, in place.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round(x: __m512i) -> __m512i {
    _mm512_slli_epi32::<16>(high_half(x))
}

/// The bf16 nearest to each f32 word, ties to even, in its low half. Weights that are not numbers stay so.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn high_half(x: __m512i) -> __m512i {
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(_mm512_castsi512_ps(x), _mm512_castsi512_ps(x));
    let quiet = _mm512_set1_epi32(0x7fc0);
    _mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), is_nan, quiet)
}

/// The block with rows and columns exchanged: words, then pairs, then quarters of a register change places.
///
/// # Safety
/// The caller is compiled for AVX-512.
#[inline(always)]
pub(super) unsafe fn transpose(mut r: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller's.
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
