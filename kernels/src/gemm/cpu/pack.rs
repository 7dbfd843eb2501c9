//! Copies blocks of operands into the words that the tiles read: rounded, paired, transposed, zero-padded.

use super::block::{
    Load, Pairs, Rounded32, RoundedPairs, Rows, Single, Widened, high_half, round, transpose,
};
use super::micro::{Layout, NR, STEPS};
use crate::simd::{Level, Storage, level, vectorize};
use half::bf16;
use std::arch::x86_64::*;

/// A matrix operand inside a tensor: element `(outer, k)` is `data[outer * outer_stride + k * k_stride]`.
///
/// `outer` counts rows of A, or columns of B. One of the strides is 1.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub data: Data<'a>,
    pub outer_stride: usize,
    pub k_stride: usize,
}

/// The elements of an operand.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    F32(&'a [f32]),
    BF16(&'a [bf16]),
}

impl Data<'_> {
    /// The elements from `start` on.
    pub fn from(self, start: usize) -> Self {
        match self {
            Data::F32(x) => Data::F32(&x[start..]),
            Data::BF16(x) => Data::BF16(&x[start..]),
        }
    }
}

impl<'a> Operand<'a> {
    /// `(outer, k)` row-major: k runs along the `stride`-long rows.
    pub fn rows(data: Data<'a>, stride: usize) -> Self {
        Operand { data, outer_stride: stride, k_stride: 1 }
    }

    /// `(k, outer)` row-major: k counts the `stride`-long rows.
    pub fn columns(data: Data<'a>, stride: usize) -> Self {
        Operand { data, outer_stride: 1, k_stride: stride }
    }
}

/// How products are formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Operands as they are, widened to f32.
    F32,
    /// Operands rounded to bf16; products and sums in f32.
    BF16,
}

impl Precision {
    /// The words' layout on this machine.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Precision::BF16 if level() == Level::Avx512Bf16 => Layout::Pairs,
            _ => Layout::Single,
        }
    }
}

/// The elements of k in one word.
pub(crate) fn terms(layout: Layout) -> usize {
    match layout {
        Layout::Single => 1,
        Layout::Pairs => 2,
    }
}

/// A window of an operand: `count` outer indices from `outer`, `steps` words of k from `k`, of `depth` in all.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub outer: usize,
    pub count: usize,
    pub k: usize,
    pub steps: usize,
    pub depth: usize,
}

/// How an element becomes (part of) a word.
trait Word {
    const TERMS: usize;
    fn word(even: f32, odd: f32) -> u32;
}

struct Exact;
struct Rounded;
struct Paired;

impl Word for Exact {
    const TERMS: usize = 1;
    #[inline(always)]
    fn word(x: f32, _: f32) -> u32 {
        x.to_bits()
    }
}

impl Word for Rounded {
    const TERMS: usize = 1;
    #[inline(always)]
    fn word(x: f32, _: f32) -> u32 {
        (bf16::put(x).to_bits() as u32) << 16
    }
}

impl Word for Paired {
    const TERMS: usize = 2;
    #[inline(always)]
    fn word(even: f32, odd: f32) -> u32 {
        bf16::put(even).to_bits() as u32 | (bf16::put(odd).to_bits() as u32) << 16
    }
}

/// Packs rows of A: `dst` is `(count, STEPS)`.
pub(crate) fn rows(dst: &mut [u32], a: &Operand, w: Window, precision: Precision) {
    if a.k_stride != 1 && level() >= Level::Avx512 {
        // SAFETY: the machine has AVX-512.
        return unsafe { transposed_rows(dst, a, w, precision) };
    }
    let place = |outer: usize, step: usize| outer * STEPS + step;
    match (a.data, precision, precision.layout()) {
        (Data::F32(x), Precision::F32, _) => scatter::<_, Exact>(dst, x, a, w, place),
        (Data::BF16(x), Precision::F32, _) => scatter::<_, Exact>(dst, x, a, w, place),
        (Data::BF16(x), _, Layout::Pairs) if a.k_stride == 1 => copy_pairs(dst, x, a, w),
        (Data::F32(x), _, Layout::Pairs) => scatter::<_, Paired>(dst, x, a, w, place),
        (Data::BF16(x), _, Layout::Pairs) => scatter::<_, Paired>(dst, x, a, w, place),
        (Data::F32(x), ..) => scatter::<_, Rounded>(dst, x, a, w, place),
        (Data::BF16(x), ..) => scatter::<_, Exact>(dst, x, a, w, place),
    }
}

/// Packs one panel of B: `dst` is `(steps, NR)`, columns beyond `count` are zero.
pub(crate) fn panel(dst: &mut [u32], b: &Operand, w: Window, precision: Precision) {
    if b.k_stride == 1 && level() >= Level::Avx512 {
        // SAFETY: the machine has AVX-512 (bf16 conversions are used for pairs alone, which imply them).
        return unsafe { transposed_panel(dst, b, w, precision) };
    }
    if w.count < NR {
        dst[..w.steps * NR].fill(0);
    }
    let place = |outer: usize, step: usize| step * NR + outer;
    match (b.data, precision, precision.layout()) {
        (Data::F32(x), Precision::F32, _) => scatter::<_, Exact>(dst, x, b, w, place),
        (Data::F32(x), _, Layout::Pairs) => scatter::<_, Paired>(dst, x, b, w, place),
        (Data::BF16(x), Precision::BF16, Layout::Pairs) => scatter::<_, Paired>(dst, x, b, w, place),
        (Data::F32(x), ..) => scatter::<_, Rounded>(dst, x, b, w, place),
        (Data::BF16(x), ..) => scatter::<_, Exact>(dst, x, b, w, place),
    }
}

/// Word by word, walking memory along the operand's unit stride.
fn scatter<T: Storage, W: Word>(
    dst: &mut [u32],
    x: &[T],
    op: &Operand,
    w: Window,
    place: impl Fn(usize, usize) -> usize,
) {
    let start = w.outer * op.outer_stride + w.k * op.k_stride;
    vectorize(
        #[inline(always)]
        || {
            // The last word of an odd depth is half empty; every other word is full.
            let full = ((w.depth - w.k) / W::TERMS).min(w.steps);
            if op.k_stride == 1 {
                for outer in 0..w.count {
                    let x = &x[start + outer * op.outer_stride..];
                    for (step, x) in x[..full * W::TERMS].chunks_exact(W::TERMS).enumerate() {
                        dst[place(outer, step)] = W::word(x[0].get(), x[W::TERMS - 1].get());
                    }
                }
            } else {
                for step in 0..full {
                    let even = &x[start + step * W::TERMS * op.k_stride..][..w.count];
                    let odd = &x[start + (step * W::TERMS + W::TERMS - 1) * op.k_stride..][..w.count];
                    for outer in 0..w.count {
                        dst[place(outer, step)] = W::word(even[outer].get(), odd[outer].get());
                    }
                }
            }
            for step in full..w.steps {
                for outer in 0..w.count {
                    let last = x[start + outer * op.outer_stride + step * W::TERMS * op.k_stride];
                    dst[place(outer, step)] = W::word(last.get(), 0.0);
                }
            }
        },
    );
}

/// bf16 rows along k are pairs already.
fn copy_pairs(dst: &mut [u32], x: &[bf16], op: &Operand, w: Window) {
    for outer in 0..w.count {
        let x = &x[(w.outer + outer) * op.outer_stride + w.k..];
        let row = &mut dst[outer * STEPS..][..w.steps];
        let available = (w.depth - w.k).min(2 * w.steps);
        *row.last_mut().expect("a window has a step") = 0; // the odd half of an odd depth
        bytemuck::cast_slice_mut::<u32, bf16>(row)[..available].copy_from_slice(&x[..available]);
    }
}

/// A panel whose columns are rows in memory: 16 by 16 words at a time, transposed in registers.
///
/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transposed_panel(dst: &mut [u32], b: &Operand, w: Window, precision: Precision) {
    // SAFETY: the caller's.
    unsafe {
        match (b.data, precision.layout(), precision) {
            (Data::F32(x), Layout::Single, Precision::F32) => blocks::<Single>(dst, x, b, w),
            (Data::F32(x), Layout::Single, Precision::BF16) => blocks::<Rounded32>(dst, x, b, w),
            (Data::BF16(x), Layout::Single, _) => blocks::<Widened>(dst, x, b, w),
            (Data::BF16(x), Layout::Pairs, _) => blocks::<Pairs>(dst, x, b, w),
            (Data::F32(x), Layout::Pairs, _) => blocks::<RoundedPairs>(dst, x, b, w),
        }
    }
}

/// # Safety
/// The caller is compiled for AVX-512.
#[inline(always)]
unsafe fn blocks<L: Load>(dst: &mut [u32], x: &[L::Element], b: &Operand, w: Window) {
    for group in (0..NR).step_by(16) {
        let rows = Rows::<L>::of(x, b, w, group);
        for step in (0..w.steps).step_by(16) {
            // SAFETY: the caller's.
            let block = unsafe { rows.transposed(step) };
            let dst = &mut dst[step * NR + group..];
            for (i, row) in block.iter().enumerate().take(w.steps - step) {
                // SAFETY: sixteen words at column `group` of a row of the panel.
                unsafe { _mm512_storeu_si512(dst[i * NR..][..16].as_mut_ptr().cast(), *row) };
            }
        }
    }
}

/// Rows that are columns in memory: 16 by 16 words at a time, transposed in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transposed_rows(dst: &mut [u32], a: &Operand, w: Window, precision: Precision) {
    let layout = precision.layout();
    for outer in (0..w.count).step_by(16) {
        let rows = (w.count - outer).min(16);
        for step in (0..w.steps).step_by(16) {
            let mut block = [_mm512_setzero_si512(); 16];
            for (i, words) in block.iter_mut().enumerate().take(w.steps - step) {
                let k = w.k + (step + i) * terms(layout);
                // SAFETY: `rows` elements follow in each row of k below `depth`; loads are masked to them.
                *words = unsafe { across(a, w.outer + outer, k, w.depth, rows, precision) };
            }
            // SAFETY: compiled for AVX-512, as this function is.
            let block = unsafe { transpose(block) };
            for (i, words) in block.iter().enumerate().take(rows) {
                let dst = &mut dst[(outer + i) * STEPS + step..][..16];
                // SAFETY: sixteen words of a row, which holds a multiple of sixteen.
                unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), *words) };
            }
        }
    }
}

/// The words at `k` of up to 16 outer indices, which lie side by side in memory.
///
/// # Safety
/// `count` elements from `outer` are inside every row of k below `depth`; the machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn across(
    op: &Operand,
    outer: usize,
    k: usize,
    depth: usize,
    count: usize,
    precision: Precision,
) -> __m512i {
    // SAFETY: the caller's.
    let load = |k: usize| unsafe {
        match op.data {
            Data::F32(x) => Single::words(x[k * op.k_stride + outer..][..count].as_ptr(), count),
            Data::BF16(x) => Widened::words(x[k * op.k_stride + outer..][..count].as_ptr(), count),
        }
    };
    match (precision.layout(), precision) {
        (Layout::Single, Precision::F32) => load(k),
        (Layout::Single, Precision::BF16) => round(load(k)),
        (Layout::Pairs, _) => {
            let odd = if k + 1 < depth { round(load(k + 1)) } else { _mm512_setzero_si512() };
            _mm512_or_si512(high_half(load(k)), odd)
        }
    }
}
