//! Products with one to four rows of A, as in decoding: each word of B is used so few times that packing it would cost
//! more than the arithmetic. B is transposed in registers and multiplied at once; an element is the same chain of
//! multiply-adds as in a micro-kernel.

use super::micro::{KC_WORDS, NR, WordFormat, dot, fma};
use super::pack::{Elements, Matrix, PackWindow, Precision};
use super::transpose::{LoadF32, LoadPairs, LoadWidened, LoadWords, RowGroup};
use crate::simd::{SimdLevel, level};
use std::arch::x86_64::*;

/// Rows of A up to which a product is skinny.
const MAX_ROWS: usize = 4;

/// Computes `c += a · b` over consecutive windows along k of at most [`NR`] columns of B.
///
/// # Safety
/// For each window in turn, `a` holds as many rows of [`KC_WORDS`] words as the function was selected for; `c` holds
/// as many of [`NR`] values, `ldc` apart; and the machine has the instruction set that the function was selected for.
///
/// # Panics
/// When B is not in the storage type that the function was selected for.
type SkinnyKernel = unsafe fn(c: *mut f32, ldc: usize, a: *const u32, b: &Matrix, windows: &[PackWindow]);

/// Returns the kernel for `rows` rows of A; `None` where packing serves better or there is none.
pub(super) fn select(rows: usize, b: &Matrix, precision: Precision) -> Option<SkinnyKernel> {
    const F32: [SkinnyKernel; MAX_ROWS] = [f32_words::<1>, f32_words::<2>, f32_words::<3>, f32_words::<4>];
    const BF16_WIDENED: [SkinnyKernel; MAX_ROWS] =
        [bf16_widened::<1>, bf16_widened::<2>, bf16_widened::<3>, bf16_widened::<4>];
    const BF16_PAIRS: [SkinnyKernel; MAX_ROWS] =
        [bf16_pairs::<1>, bf16_pairs::<2>, bf16_pairs::<3>, bf16_pairs::<4>];
    if b.k_stride != 1 || level() < SimdLevel::Avx512 {
        return None;
    }
    let functions = match (b.data, precision, precision.format()) {
        (Elements::BF16(_), _, WordFormat::Bf16Pair) => BF16_PAIRS,
        (Elements::BF16(_), _, WordFormat::F32) => BF16_WIDENED,
        (Elements::F32(_), Precision::F32, _) => F32,
        // No checkpoint has f32 weights under bf16 activations.
        (Elements::F32(_), Precision::BF16, _) => return None,
    };
    functions.get(rows.checked_sub(1)?).copied()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn f32_words<const ROWS: usize>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    b: &Matrix,
    windows: &[PackWindow],
) {
    let Elements::F32(x) = b.data else { unreachable!("selected for f32") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply_windows::<ROWS, LoadF32>(c, ldc, a, x, b, windows, |acc, x, b| fma(acc, x, b)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn bf16_widened<const ROWS: usize>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    b: &Matrix,
    windows: &[PackWindow],
) {
    let Elements::BF16(x) = b.data else { unreachable!("selected for bf16") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply_windows::<ROWS, LoadWidened>(c, ldc, a, x, b, windows, |acc, x, b| fma(acc, x, b)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn bf16_pairs<const ROWS: usize>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    b: &Matrix,
    windows: &[PackWindow],
) {
    let Elements::BF16(x) = b.data else { unreachable!("selected for bf16") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply_windows::<ROWS, LoadPairs>(c, ldc, a, x, b, windows, |acc, x, b| dot(acc, x, b)) }
}

/// The loop that all kernels share: it reads sixteen columns of B, which are rows of a weight, from end to end before
/// the next sixteen. More of them at once would be more streams than the processor prefetches.
///
/// # Safety
/// The contract of [`SkinnyKernel`]; `multiply` may use the instruction set of the caller.
#[inline(always)]
unsafe fn multiply_windows<const ROWS: usize, L: LoadWords>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    x: &[L::Element],
    b: &Matrix,
    windows: &[PackWindow],
    multiply: impl Fn(__m512, __m512i, __m512i) -> __m512,
) {
    for group in (0..NR).step_by(16) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let c_at = |row: usize| c.add(row * ldc + group);
            let mut acc: [__m512; ROWS] = std::array::from_fn(|row| _mm512_loadu_ps(c_at(row)));
            for (i, w) in windows.iter().enumerate() {
                let a = |row: usize, k: usize| a.add((i * ROWS + row) * KC_WORDS + k);
                let rows = RowGroup::<L>::new(x, b, *w, group);
                let full = w.steps / 16 * 16;
                for step in (0..full).step_by(16) {
                    let block = rows.transposed(step);
                    for (k, &b) in block.iter().enumerate() {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = multiply(*acc, _mm512_set1_epi32(*a(row, step + k) as i32), b);
                        }
                    }
                }
                if full < w.steps {
                    let block = rows.transposed(full);
                    for (k, &b) in block.iter().enumerate().take(w.steps - full) {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = multiply(*acc, _mm512_set1_epi32(*a(row, full + k) as i32), b);
                        }
                    }
                }
            }
            acc.iter().enumerate().for_each(|(row, acc)| _mm512_storeu_ps(c_at(row), *acc));
        }
    }
}
