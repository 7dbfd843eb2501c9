//! Vectors of each instruction set, and the formats of the words that are multiplied in them.
//!
//! The functions are inlined into callers that are compiled for the instruction set: as calls, every vector would pass
//! through memory.

use std::arch::x86_64::*;

/// The vectors of an instruction set: f32 values, or words of 32 bits in their place.
pub(super) trait Lanes {
    type Vector: Copy;
    /// Values of a vector.
    const LANES: usize;

    /// Returns a vector of zeros.
    ///
    /// # Safety
    /// The caller is compiled for the instruction set.
    unsafe fn zero() -> Self::Vector;

    /// Reads a vector.
    ///
    /// # Safety
    /// A vector can be read at `x`; the caller is compiled for the instruction set.
    unsafe fn load(x: *const f32) -> Self::Vector;

    /// Writes a vector.
    ///
    /// # Safety
    /// A vector can be written at `x`; the caller is compiled for the instruction set.
    unsafe fn store(x: *mut f32, v: Self::Vector);

    /// Returns `acc + a · b` with the f32 `a` in every lane.
    ///
    /// # Safety
    /// The caller is compiled for the instruction set.
    unsafe fn fma(acc: Self::Vector, a: f32, b: Self::Vector) -> Self::Vector;

    /// Widens the bf16 in the low and in the high half of each word.
    ///
    /// # Safety
    /// The caller is compiled for the instruction set.
    unsafe fn widen(words: Self::Vector) -> [Self::Vector; 2];
}

/// AVX-512 F.
pub(super) struct Avx512;
/// AVX2 with FMA.
pub(super) struct Avx2;
/// The baseline: the multiply-add rounds twice.
pub(super) struct Portable;

impl Lanes for Avx512 {
    type Vector = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn store(x: *mut f32, v: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(x, v) }
    }

    #[inline(always)]
    unsafe fn fma(acc: __m512, a: f32, b: __m512) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(a), b, acc) }
    }

    #[inline(always)]
    unsafe fn widen(words: __m512) -> [__m512; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let words = _mm512_castps_si512(words);
            let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)), _mm512_castsi512_ps(high)]
        }
    }
}

impl Lanes for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn store(x: *mut f32, v: __m256) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_storeu_ps(x, v) }
    }

    #[inline(always)]
    unsafe fn fma(acc: __m256, a: f32, b: __m256) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_fmadd_ps(_mm256_set1_ps(a), b, acc) }
    }

    #[inline(always)]
    unsafe fn widen(words: __m256) -> [__m256; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let words = _mm256_castps_si256(words);
            let high = _mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)), _mm256_castsi256_ps(high)]
        }
    }
}

impl Lanes for Portable {
    type Vector = [f32; 4];
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn load(x: *const f32) -> [f32; 4] {
        // SAFETY: guaranteed by the caller.
        unsafe { x.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(x: *mut f32, v: [f32; 4]) {
        // SAFETY: guaranteed by the caller.
        unsafe { x.cast::<[f32; 4]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn fma(acc: [f32; 4], a: f32, b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| acc[i] + a * b[i])
    }

    #[inline(always)]
    unsafe fn widen(words: [f32; 4]) -> [[f32; 4]; 2] {
        let word = |i: usize| words[i].to_bits();
        let low = std::array::from_fn(|i| f32::from_bits(word(i) << 16));
        [low, std::array::from_fn(|i| f32::from_bits(word(i) & 0xffff_0000))]
    }
}

/// Contents of the words of A and B.
pub(super) trait Format<L: Lanes> {
    /// Words of A that a word of B meets.
    const A_WORDS: usize;

    /// Returns `acc` plus the product of the words at `a`, the same in every lane, and a vector of words of B.
    ///
    /// # Safety
    /// [`Format::A_WORDS`] words can be read at `a`; the caller is compiled for the instruction set.
    unsafe fn fold(acc: L::Vector, a: *const u32, b: L::Vector) -> L::Vector;
}

/// f32 in both.
pub(super) struct Wide;
/// f32 in A, pairs of bf16 in B.
pub(super) struct Widened;
/// Pairs of bf16 in both, whose dot product is added.
pub(super) struct Pairs;

impl<L: Lanes> Format<L> for Wide {
    const A_WORDS: usize = 1;

    #[inline(always)]
    unsafe fn fold(acc: L::Vector, a: *const u32, b: L::Vector) -> L::Vector {
        // SAFETY: guaranteed by the caller.
        unsafe { L::fma(acc, f32::from_bits(*a), b) }
    }
}

impl<L: Lanes> Format<L> for Widened {
    const A_WORDS: usize = 2;

    #[inline(always)]
    unsafe fn fold(acc: L::Vector, a: *const u32, b: L::Vector) -> L::Vector {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let [even, odd] = L::widen(b);
            L::fma(L::fma(acc, f32::from_bits(*a), even), f32::from_bits(*a.add(1)), odd)
        }
    }
}

/// The caller is compiled for AVX-512 BF16 besides.
impl Format<Avx512> for Pairs {
    const A_WORDS: usize = 1;

    #[inline(always)]
    unsafe fn fold(acc: __m512, a: *const u32, b: __m512) -> __m512 {
        // SAFETY: guaranteed by the caller; all vectors are 64 bytes of plain data.
        unsafe {
            let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*a as i32));
            _mm512_dpbf16_ps(acc, a, std::mem::transmute::<__m512, __m512bh>(b))
        }
    }
}
