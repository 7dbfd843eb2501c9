//! Copies blocks of operands into the words that the tiles read: rounded, paired, transposed, zero-padded.

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
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transposed_panel(dst: &mut [u32], b: &Operand, w: Window, precision: Precision) {
    let layout = precision.layout();
    for group in (0..NR).step_by(16) {
        for step in (0..w.steps).step_by(16) {
            let mut block = [_mm512_setzero_si512(); 16];
            let k = w.k + step * terms(layout);
            for (i, row) in block.iter_mut().enumerate().take(w.count.saturating_sub(group)) {
                let at = (w.outer + group + i) * b.outer_stride + k;
                let available = w.depth - k;
                prefetch(&b.data, at);
                // SAFETY: `available` elements follow `at` in the operand; loads are masked to them.
                *row = unsafe {
                    match (b.data, layout, precision) {
                        (Data::F32(x), Layout::Single, p) => {
                            let x = load_f32(&x[at..], available);
                            if p == Precision::BF16 { round(x) } else { x }
                        }
                        (Data::BF16(x), Layout::Single, _) => load_widened(&x[at..], available),
                        (Data::BF16(x), Layout::Pairs, _) => load_pairs(&x[at..], available),
                        (Data::F32(x), Layout::Pairs, _) => load_rounded_pairs(&x[at..], available),
                    }
                };
            }
            transpose(&mut block);
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
            transpose(&mut block);
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
            Data::F32(x) => load_f32(&x[k * op.k_stride + outer..], count),
            Data::BF16(x) => load_widened(&x[k * op.k_stride + outer..], count),
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

/// Asks for the same row one packed chunk further on; nothing happens beyond the operand.
#[inline(always)]
fn prefetch(data: &Data, at: usize) {
    let start = match data {
        Data::F32(x) => x.as_ptr().wrapping_add(at).cast::<u8>(),
        Data::BF16(x) => x.as_ptr().wrapping_add(at).cast(),
    };
    // SAFETY: a prefetch faults on no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(4 * STEPS).cast()) };
}

fn low_bits(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

#[target_feature(enable = "avx512f")]
unsafe fn load_f32(x: &[f32], available: usize) -> __m512i {
    // SAFETY: the mask keeps the load inside `x`.
    unsafe { _mm512_maskz_loadu_epi32(low_bits(available.min(16)) as u16, x.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_widened(x: &[bf16], available: usize) -> __m512i {
    // SAFETY: as above.
    let half = unsafe { _mm256_maskz_loadu_epi16(low_bits(available.min(16)) as u16, x.as_ptr().cast()) };
    _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_pairs(x: &[bf16], available: usize) -> __m512i {
    // SAFETY: as above.
    unsafe { _mm512_maskz_loadu_epi16(low_bits(available), x.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_rounded_pairs(x: &[f32], available: usize) -> __m512i {
    let mask = low_bits(available);
    // SAFETY: as above, in two halves.
    let (low, high) = unsafe {
        (
            _mm512_maskz_loadu_epi32(mask as u16, x.as_ptr().cast()),
            _mm512_maskz_loadu_epi32((mask >> 16) as u16, x.as_ptr().wrapping_add(16).cast()),
        )
    };
    // Even words of the result come from `low`'s first, so the order of k is kept.
    let (low, high) = (_mm512_cvtepi32_epi16(high_half(low)), _mm512_cvtepi32_epi16(high_half(high)));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// f32 words rounded to bf16, in place.
#[target_feature(enable = "avx512f")]
fn round(x: __m512i) -> __m512i {
    _mm512_slli_epi32::<16>(high_half(x))
}

/// The bf16 nearest to each f32 word, ties to even, in its low half. Weights that are not numbers stay so.
#[target_feature(enable = "avx512f")]
fn high_half(x: __m512i) -> __m512i {
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(_mm512_castsi512_ps(x), _mm512_castsi512_ps(x));
    let quiet = _mm512_set1_epi32(0x7fc0);
    _mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), is_nan, quiet)
}

/// Transposes a block of 16 by 16 words: words, then pairs, then quarters of a register change places.
#[target_feature(enable = "avx512f")]
fn transpose(r: &mut [__m512i; 16]) {
    let mut t = *r;
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
    *r = t;
}
