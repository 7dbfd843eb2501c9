//! Few rows of A, as in decoding: each word of B is used so few times that writing it to a panel would cost more than
//! the arithmetic. It is transposed in registers and multiplied at once; the chain of an element is that of the tiles.

use super::block::{Load, Pairs, Rows, Single, Widened};
use super::micro::{Layout, NR, STEPS, dot, fma};
use super::pack::{Data, Operand, Precision, Window};
use crate::simd::{Level, level};
use std::arch::x86_64::*;

/// The most rows that are few.
const FEW: usize = 4;

/// `c += a · b` over consecutive windows of [`NR`] columns of B at most.
///
/// # Safety
/// For each window in its turn, `a` holds as many rows of [`STEPS`] words as the function was chosen for; `c` holds as
/// many of [`NR`] values, `ldc` apart; and the machine has the instruction set that the function was chosen for.
///
/// # Panics
/// When B is not what the function was chosen for.
type Few = unsafe fn(c: *mut f32, ldc: usize, a: *const u32, b: &Operand, windows: &[Window]);

/// The function for `rows` rows of A, if those are few and there is one.
pub(super) fn select(rows: usize, b: &Operand, precision: Precision) -> Option<Few> {
    const SINGLE: [Few; FEW] = [single::<1>, single::<2>, single::<3>, single::<4>];
    const WIDENED: [Few; FEW] = [widened::<1>, widened::<2>, widened::<3>, widened::<4>];
    const PAIRS: [Few; FEW] = [pairs::<1>, pairs::<2>, pairs::<3>, pairs::<4>];
    if b.k_stride != 1 || level() < Level::Avx512 {
        return None;
    }
    let functions = match (b.data, precision, precision.layout()) {
        (Data::BF16(_), _, Layout::Pairs) => PAIRS,
        (Data::BF16(_), _, Layout::Single) => WIDENED,
        (Data::F32(_), Precision::F32, _) => SINGLE,
        // An f32 weight under bf16 activations is no checkpoint's.
        (Data::F32(_), Precision::BF16, _) => return None,
    };
    functions.get(rows.checked_sub(1)?).copied()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn single<const ROWS: usize>(c: *mut f32, ldc: usize, a: *const u32, b: &Operand, windows: &[Window]) {
    let Data::F32(x) = b.data else { unreachable!("chosen for f32") };
    // SAFETY: the contract of [`Few`].
    unsafe { walk::<ROWS, Single>(c, ldc, a, x, b, windows, |acc, x, b| fma(acc, x, b)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn widened<const ROWS: usize>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    b: &Operand,
    windows: &[Window],
) {
    let Data::BF16(x) = b.data else { unreachable!("chosen for bf16") };
    // SAFETY: the contract of [`Few`].
    unsafe { walk::<ROWS, Widened>(c, ldc, a, x, b, windows, |acc, x, b| fma(acc, x, b)) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pairs<const ROWS: usize>(c: *mut f32, ldc: usize, a: *const u32, b: &Operand, windows: &[Window]) {
    let Data::BF16(x) = b.data else { unreachable!("chosen for bf16") };
    // SAFETY: the contract of [`Few`].
    unsafe { walk::<ROWS, Pairs>(c, ldc, a, x, b, windows, |acc, x, b| dot(acc, x, b)) }
}

/// The loop of all: sixteen columns of B, which are rows of a weight, from end to end before the next sixteen. More
/// of them at once are more streams than the processor prefetches.
///
/// # Safety
/// The contract of [`Few`]; `multiply` may use the instruction set of the caller.
#[inline(always)]
unsafe fn walk<const ROWS: usize, L: Load>(
    c: *mut f32,
    ldc: usize,
    a: *const u32,
    x: &[L::Element],
    b: &Operand,
    windows: &[Window],
    multiply: impl Fn(__m512, __m512i, __m512i) -> __m512,
) {
    for group in (0..NR).step_by(16) {
        // SAFETY: the caller's.
        unsafe {
            let at = |row: usize| c.add(row * ldc + group);
            let mut acc: [__m512; ROWS] = std::array::from_fn(|row| _mm512_loadu_ps(at(row)));
            for (i, w) in windows.iter().enumerate() {
                let a = |row: usize, k: usize| a.add((i * ROWS + row) * STEPS + k);
                let rows = Rows::<L>::of(x, b, *w, group);
                let whole = w.steps / 16 * 16;
                for step in (0..whole).step_by(16) {
                    let block = rows.transposed(step);
                    for (k, &b) in block.iter().enumerate() {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = multiply(*acc, _mm512_set1_epi32(*a(row, step + k) as i32), b);
                        }
                    }
                }
                if whole < w.steps {
                    let block = rows.transposed(whole);
                    for (k, &b) in block.iter().enumerate().take(w.steps - whole) {
                        for (row, acc) in acc.iter_mut().enumerate() {
                            *acc = multiply(*acc, _mm512_set1_epi32(*a(row, whole + k) as i32), b);
                        }
                    }
                }
            }
            acc.iter().enumerate().for_each(|(row, acc)| _mm512_storeu_ps(at(row), *acc));
        }
    }
}
