//! Packing across: words of 32 outer indices that are neighbours in memory, from the one or two rows of k that a word holds.
//!
//! The functions are inlined into callers that are compiled for AVX-512 (F, BW, VL).

use super::pack::{Matrix, PackWindow};
use super::transpose::{
    LoadF32, LoadPairs, LoadRounded, LoadRoundedPairs, LoadWidened, LoadWords, bf16_bits, low_bits, round,
};
use half::bf16;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Conversion of elements at neighbouring outer indices to words.
pub(super) trait LoadAcross: LoadWords + Sized {
    /// Steps of k in a word.
    const K_STEPS: usize = 1;

    /// Returns the words of the first `count` of 32 outer indices, zero beyond them. `even` is their row of k, and `odd` the
    /// next one, if a word holds two and there is one.
    ///
    /// # Safety
    /// `count` elements can be read in each row; the caller is compiled for AVX-512.
    #[inline(always)]
    unsafe fn across(
        even: *const Self::Element,
        _odd: Option<*const Self::Element>,
        count: usize,
    ) -> [__m512i; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { row::<Self>(even, count) }
    }
}

/// Returns the words of one row of k.
///
/// # Safety
/// As [`LoadAcross::across`].
#[inline(always)]
unsafe fn row<L: LoadWords>(x: *const L::Element, count: usize) -> [__m512i; 2] {
    // SAFETY: guaranteed by the caller; loads are masked to `count`.
    unsafe { [L::words(x, count), L::words(x.wrapping_add(16), count.saturating_sub(16))] }
}

impl LoadAcross for LoadF32 {}
impl LoadAcross for LoadRounded {}
impl LoadAcross for LoadWidened {}

impl LoadAcross for LoadPairs {
    const K_STEPS: usize = 2;

    #[inline(always)]
    unsafe fn across(even: *const bf16, odd: Option<*const bf16>, count: usize) -> [__m512i; 2] {
        // SAFETY: guaranteed by the caller; loads are masked to `count`.
        unsafe {
            let row = |x: *const bf16| _mm512_maskz_loadu_epi16(low_bits(count), x.cast());
            let (even, odd) = (row(even), odd.map_or(_mm512_setzero_si512(), row));
            // Unpacking interleaves within quarters: they are first put in the order in which it leaves them.
            let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
            let (even, odd) = (_mm512_permutexvar_epi64(order, even), _mm512_permutexvar_epi64(order, odd));
            [_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)]
        }
    }
}

impl LoadAcross for LoadRoundedPairs {
    const K_STEPS: usize = 2;

    #[inline(always)]
    unsafe fn across(even: *const f32, odd: Option<*const f32>, count: usize) -> [__m512i; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let [low, high] = row::<LoadF32>(even, count).map(|even| bf16_bits(even));
            let Some(odd) = odd else { return [low, high] };
            let [odd_low, odd_high] = row::<LoadF32>(odd, count).map(|odd| round(odd));
            [_mm512_or_si512(low, odd_low), _mm512_or_si512(high, odd_high)]
        }
    }
}

/// Up to 32 neighbouring outer indices of an operand, from the start of a window along k.
pub(super) struct ColumnGroup<L: LoadAcross> {
    first: *const L::Element,
    stride: usize,
    count: usize,
    /// Rows of k from `first` on.
    depth: usize,
    load: PhantomData<L>,
}

impl<L: LoadAcross> ColumnGroup<L> {
    /// The outer indices from `group` on of a window of `op`, whose elements are `x`, and whose outer index is contiguous.
    ///
    /// # Panics
    /// When they do not lie inside of `x`.
    pub(super) fn new(x: &[L::Element], op: &Matrix, w: PackWindow, group: usize) -> Self {
        let count = w.count.saturating_sub(group).min(32);
        let depth = (w.depth - w.k).min(w.steps * L::K_STEPS);
        let first = w.outer + group.min(w.count) + w.k * op.k_stride;
        if count > 0 && depth > 0 {
            assert!(first + (depth - 1) * op.k_stride + count <= x.len(), "the operand ends early");
        }
        ColumnGroup {
            first: x.as_ptr().wrapping_add(first),
            stride: op.k_stride,
            count,
            depth,
            load: PhantomData,
        }
    }

    /// The outer indices.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns word `step` of all outer indices.
    ///
    /// # Safety
    /// The window holds the step; the caller is compiled for AVX-512.
    #[inline(always)]
    pub(super) unsafe fn words(&self, step: usize) -> [__m512i; 2] {
        let k = step * L::K_STEPS;
        let row = |k: usize| self.first.wrapping_add(k * self.stride);
        let odd = (L::K_STEPS == 2 && k + 1 < self.depth).then(|| row(k + 1));
        // SAFETY: the rows were checked to be in the operand.
        unsafe { L::across(row(k), odd, self.count) }
    }
}
