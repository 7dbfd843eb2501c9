//! Products with one to four rows of A, as in decoding: each word of B is used so few times that packing it would cost
//! more than the arithmetic. B is transposed in registers and multiplied at once; an element is the same chain of
//! multiply-adds as in a micro-kernel.

use super::lanes::{Avx512, Format, Pairs, Wide};
use super::micro::{KC_WORDS, NR, OutputTile, Start, WordFormat};
use super::pack::{Elements, Matrix, PackWindow, Precision};
use super::transpose::{LoadF32, LoadPairs, LoadWidened, LoadWords, RowGroup};
use crate::simd::{SimdLevel, level};
use std::arch::x86_64::*;

/// Rows of A up to which a product is skinny.
const MAX_ROWS: usize = 4;

/// Computes `c = start + a · b` over a window of at most [`NR`] columns of B.
///
/// # Safety
/// For each [block](PackWindow::blocks) of the window in turn, `a_block` words apart, `a` holds as many rows of
/// [`KC_WORDS`] words as the function was selected for; `c` holds as many of [`NR`] values; and the machine has the
/// instruction set that the function was selected for.
///
/// # Panics
/// When B is not in the storage type that the function was selected for.
pub(super) type SkinnyKernel =
    unsafe fn(c: OutputTile, a: *const u32, a_block: usize, b: &Matrix, w: PackWindow);

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
    c: OutputTile,
    a: *const u32,
    a_block: usize,
    b: &Matrix,
    w: PackWindow,
) {
    let Elements::F32(x) = b.data else { unreachable!("selected for f32") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply::<ROWS, LoadF32, Wide>(c, (a, a_block), (x, b), w, WordFormat::F32) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn bf16_widened<const ROWS: usize>(
    c: OutputTile,
    a: *const u32,
    a_block: usize,
    b: &Matrix,
    w: PackWindow,
) {
    let Elements::BF16(x) = b.data else { unreachable!("selected for bf16") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply::<ROWS, LoadWidened, Wide>(c, (a, a_block), (x, b), w, WordFormat::F32) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn bf16_pairs<const ROWS: usize>(
    c: OutputTile,
    a: *const u32,
    a_block: usize,
    b: &Matrix,
    w: PackWindow,
) {
    let Elements::BF16(x) = b.data else { unreachable!("selected for bf16") };
    // SAFETY: the contract of [`SkinnyKernel`].
    unsafe { multiply::<ROWS, LoadPairs, Pairs>(c, (a, a_block), (x, b), w, WordFormat::Bf16Pair) }
}

/// The loop that all kernels share: it reads sixteen columns of B, which are rows of a weight, from end to end before
/// the next sixteen. More of them at once would be more streams than the processor prefetches.
///
/// # Safety
/// The contract of [`SkinnyKernel`]; the caller is compiled for the instruction set of `F`.
#[inline(always)]
unsafe fn multiply<const ROWS: usize, L: LoadWords, F: Format<Avx512>>(
    c: OutputTile,
    (a, a_block): (*const u32, usize),
    (x, b): (&[L::Element], &Matrix),
    w: PackWindow,
    format: WordFormat,
) {
    for group in (0..NR).step_by(16) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let c_at = |row: usize| c.first.add(row * c.stride + group);
            let mut acc: [__m512; ROWS] = std::array::from_fn(|row| match c.start {
                Start::Zero => _mm512_setzero_ps(),
                Start::C => _mm512_loadu_ps(c_at(row)),
            });
            for (i, w) in w.blocks(format).enumerate() {
                let a = |row: usize, k: usize| a.add(i * a_block + row * KC_WORDS + k);
                let rows = RowGroup::<L>::new(x, b, w, group);
                let full = w.steps / 16 * 16;
                for step in (0..full).step_by(16) {
                    let block = rows.transposed(step);
                    for (k, &b) in block.iter().enumerate() {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = F::fold(*acc, a(row, step + k), _mm512_castsi512_ps(b));
                        }
                    }
                }
                if full < w.steps {
                    let block = rows.transposed(full);
                    for (k, &b) in block.iter().enumerate().take(w.steps - full) {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = F::fold(*acc, a(row, full + k), _mm512_castsi512_ps(b));
                        }
                    }
                }
            }
            acc.iter().enumerate().for_each(|(row, acc)| _mm512_storeu_ps(c_at(row), *acc));
        }
    }
}
