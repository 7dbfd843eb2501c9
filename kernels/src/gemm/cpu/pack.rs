//! Packing: copies blocks of the operands into panels of 32-bit words in the order in which micro-kernels read them,
//! rounded, paired, transposed and zero-padded as needed.

use super::across::{ColumnGroup, LoadAcross};
use super::micro::{KC_WORDS, NR, WordFormat};
use super::packed_rows::PackedRows;
use super::panels::Panels;
use super::transpose::{LoadF32, LoadPairs, LoadRounded, LoadRoundedPairs, LoadWidened, RowGroup, transpose};
use crate::simd::{SimdLevel, Storage, level, vectorize};
use codelsi_engine::DType;
use half::bf16;
use std::arch::x86_64::*;

/// View of an operand inside a tensor: element `(outer, k)` is `data[outer * outer_stride + k * k_stride]`.
///
/// `outer` is the row of A or the column of B. One of the strides is 1.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub data: Elements<'a>,
    pub outer_stride: usize,
    pub k_stride: usize,
    /// The same elements in panels, where a weight keeps them.
    pub panels: Option<Panels<'a>>,
    /// The same elements in packed rows, where several products share them.
    pub rows: Option<PackedRows<'a>>,
}

/// Elements of an operand, in their storage type.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    F32(&'a [f32]),
    BF16(&'a [bf16]),
}

impl<'a> Elements<'a> {
    /// The elements of a slice of f32 or bf16.
    pub fn of<T: Storage>(x: &'a [T]) -> Self {
        match T::DTYPE {
            DType::BF16 => Elements::BF16(bytemuck::cast_slice(x)),
            _ => Elements::F32(bytemuck::cast_slice(x)),
        }
    }

    /// Returns the elements from `start` on.
    pub fn skip(self, start: usize) -> Self {
        match self {
            Elements::F32(x) => Elements::F32(&x[start..]),
            Elements::BF16(x) => Elements::BF16(&x[start..]),
        }
    }
}

impl<'a> Matrix<'a> {
    /// A view of `(outer, k)` in row-major order with leading dimension `stride`: k is contiguous.
    pub fn k_major(data: Elements<'a>, stride: usize) -> Self {
        Matrix { data, outer_stride: stride, k_stride: 1, panels: None, rows: None }
    }

    /// A view of `(k, outer)` in row-major order with leading dimension `stride`: the outer index is contiguous.
    pub fn mn_major(data: Elements<'a>, stride: usize) -> Self {
        Matrix { data, outer_stride: 1, k_stride: stride, panels: None, rows: None }
    }
}

/// Precision of the operands of a product; sums are f32 in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Operands are widened to f32.
    F32,
    /// Operands are rounded to bf16, products are f32.
    BF16,
}

impl Precision {
    /// The precision of products of activations of type `T`.
    pub fn of<T: Storage>() -> Self {
        match T::DTYPE {
            DType::BF16 => Precision::BF16,
            _ => Precision::F32,
        }
    }

    /// Returns the format of packed words on this machine.
    pub(crate) fn format(self) -> WordFormat {
        match self {
            Precision::BF16 if level() == SimdLevel::Avx512Bf16 => WordFormat::Bf16Pair,
            _ => WordFormat::F32,
        }
    }
}

/// A part of an operand: `count` outer indices from `outer`, `steps` words along k from `k`, of an operand that is `depth`
/// deep.
#[derive(Clone, Copy)]
pub(crate) struct PackWindow {
    pub outer: usize,
    pub count: usize,
    pub k: usize,
    pub steps: usize,
    pub depth: usize,
}

impl PackWindow {
    /// Returns the parts of at most [`KC_WORDS`] words along k, in order.
    pub(super) fn blocks(self, format: WordFormat) -> impl Iterator<Item = PackWindow> {
        (0..self.steps).step_by(KC_WORDS).map(move |step| PackWindow {
            k: self.k + step * format.k_per_word(),
            steps: (self.steps - step).min(KC_WORDS),
            ..self
        })
    }
}

/// Conversion of elements to a packed word.
trait PackWord {
    /// Steps of k in a word.
    const K_STEPS: usize;
    fn word(even: f32, odd: f32) -> u32;
}

/// The element as f32.
struct PackF32;
/// The element rounded to bf16, as f32.
struct PackRounded;
/// Two elements rounded to bf16.
struct PackPair;

impl PackWord for PackF32 {
    const K_STEPS: usize = 1;
    #[inline(always)]
    fn word(x: f32, _: f32) -> u32 {
        x.to_bits()
    }
}

impl PackWord for PackRounded {
    const K_STEPS: usize = 1;
    #[inline(always)]
    fn word(x: f32, _: f32) -> u32 {
        (bf16::put(x).to_bits() as u32) << 16
    }
}

impl PackWord for PackPair {
    const K_STEPS: usize = 2;
    #[inline(always)]
    fn word(even: f32, odd: f32) -> u32 {
        bf16::put(even).to_bits() as u32 | (bf16::put(odd).to_bits() as u32) << 16
    }
}

/// Packs rows of A into `dst` `(count, KC_WORDS)`.
pub(crate) fn pack_a(dst: &mut [u32], a: &Matrix, w: PackWindow, precision: Precision) {
    if level() >= SimdLevel::Avx512 {
        // SAFETY: the machine has AVX-512.
        return unsafe {
            match a.k_stride == 1 {
                true => pack_vectors::<CopyRows>(dst, a, w, precision, precision.format()),
                false => pack_vectors::<TransposeAcross>(dst, a, w, precision, precision.format()),
            }
        };
    }
    let index = |outer: usize, step: usize| outer * KC_WORDS + step;
    match (a.data, precision) {
        (Elements::F32(x), Precision::F32) => pack_scalar::<_, PackF32>(dst, x, a, w, index),
        (Elements::F32(x), Precision::BF16) => pack_scalar::<_, PackRounded>(dst, x, a, w, index),
        (Elements::BF16(x), _) => pack_scalar::<_, PackF32>(dst, x, a, w, index),
    }
}

/// Packs one panel of B into `dst` `(steps, NR)`, as words of `format`; columns beyond `count` become zero.
pub(crate) fn pack_b(dst: &mut [u32], b: &Matrix, w: PackWindow, precision: Precision, format: WordFormat) {
    if level() >= SimdLevel::Avx512 {
        // SAFETY: the machine has AVX-512.
        return unsafe {
            match b.k_stride == 1 {
                true => pack_vectors::<TransposeRows>(dst, b, w, precision, format),
                false => pack_vectors::<CopyAcross>(dst, b, w, precision, format),
            }
        };
    }
    if w.count < NR {
        dst[..w.steps * NR].fill(0);
    }
    let index = |outer: usize, step: usize| step * NR + outer;
    match (b.data, format, precision) {
        (Elements::F32(x), WordFormat::F32, Precision::F32) => pack_scalar::<_, PackF32>(dst, x, b, w, index),
        (Elements::F32(x), WordFormat::F32, _) => pack_scalar::<_, PackRounded>(dst, x, b, w, index),
        (Elements::F32(x), WordFormat::Bf16Pair, _) => pack_scalar::<_, PackPair>(dst, x, b, w, index),
        (Elements::BF16(x), WordFormat::F32, _) => pack_scalar::<_, PackF32>(dst, x, b, w, index),
        (Elements::BF16(x), WordFormat::Bf16Pair, _) => pack_scalar::<_, PackPair>(dst, x, b, w, index),
    }
}

/// Packs word by word, reading memory along the operand's unit stride.
fn pack_scalar<T: Storage, W: PackWord>(
    dst: &mut [u32],
    x: &[T],
    op: &Matrix,
    w: PackWindow,
    index: impl Fn(usize, usize) -> usize,
) {
    let start = w.outer * op.outer_stride + w.k * op.k_stride;
    vectorize(
        #[inline(always)]
        || {
            // The last word of an odd depth is half empty; every other word is full.
            let full = ((w.depth - w.k) / W::K_STEPS).min(w.steps);
            if op.k_stride == 1 {
                for outer in 0..w.count {
                    let x = &x[start + outer * op.outer_stride..];
                    for (step, x) in x[..full * W::K_STEPS].chunks_exact(W::K_STEPS).enumerate() {
                        dst[index(outer, step)] = W::word(x[0].get(), x[W::K_STEPS - 1].get());
                    }
                }
            } else {
                for step in 0..full {
                    let even = &x[start + step * W::K_STEPS * op.k_stride..][..w.count];
                    let odd = &x[start + (step * W::K_STEPS + W::K_STEPS - 1) * op.k_stride..][..w.count];
                    for outer in 0..w.count {
                        dst[index(outer, step)] = W::word(even[outer].get(), odd[outer].get());
                    }
                }
            }
            for step in full..w.steps {
                for outer in 0..w.count {
                    let last = x[start + outer * op.outer_stride + step * W::K_STEPS * op.k_stride];
                    dst[index(outer, step)] = W::word(last.get(), 0.0);
                }
            }
        },
    );
}

/// A way to pack an operand with vectors of AVX-512.
trait VectorPacking {
    /// Packs a window of `op`, whose elements are `x`.
    ///
    /// # Safety
    /// The caller is compiled for AVX-512.
    unsafe fn pack<L: LoadAcross>(dst: &mut [u32], x: &[L::Element], op: &Matrix, w: PackWindow);
}

/// K-major rows of A: converted as they are copied.
struct CopyRows;
/// K-major rows of B: 16 by 16 words at a time, transposed in registers.
struct TransposeRows;
/// An N-major B: rows of k are copied, or two of them interleaved.
struct CopyAcross;
/// An M-major A: 16 by 16 words at a time, transposed in registers.
struct TransposeAcross;

/// Packs a window of an operand as words of `format`.
///
/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack_vectors<P: VectorPacking>(
    dst: &mut [u32],
    op: &Matrix,
    w: PackWindow,
    precision: Precision,
    format: WordFormat,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match (op.data, format, precision) {
            (Elements::F32(x), WordFormat::F32, Precision::F32) => P::pack::<LoadF32>(dst, x, op, w),
            (Elements::F32(x), WordFormat::F32, Precision::BF16) => P::pack::<LoadRounded>(dst, x, op, w),
            (Elements::BF16(x), WordFormat::F32, _) => P::pack::<LoadWidened>(dst, x, op, w),
            (Elements::BF16(x), WordFormat::Bf16Pair, _) => P::pack::<LoadPairs>(dst, x, op, w),
            (Elements::F32(x), WordFormat::Bf16Pair, _) => P::pack::<LoadRoundedPairs>(dst, x, op, w),
        }
    }
}

impl VectorPacking for CopyRows {
    #[inline(always)]
    unsafe fn pack<L: LoadAcross>(dst: &mut [u32], x: &[L::Element], a: &Matrix, w: PackWindow) {
        for outer in 0..w.count {
            let row = &x[(w.outer + outer) * a.outer_stride + w.k..][..w.depth - w.k];
            let dst = &mut dst[outer * KC_WORDS..][..KC_WORDS];
            for (step, dst) in dst.chunks_exact_mut(16).enumerate().take(w.steps.div_ceil(16)) {
                let row = &row[step * L::ELEMENTS..];
                // SAFETY: the load is masked to the row, and sixteen words follow in `dst`.
                unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), L::words(row.as_ptr(), row.len())) };
            }
        }
    }
}

impl VectorPacking for TransposeRows {
    #[inline(always)]
    unsafe fn pack<L: LoadAcross>(dst: &mut [u32], x: &[L::Element], b: &Matrix, w: PackWindow) {
        for group in (0..NR).step_by(16) {
            if group >= w.count {
                dst[..w.steps * NR].chunks_exact_mut(NR).for_each(|row| row[group..].fill(0));
                break;
            }
            let rows = RowGroup::<L>::new(x, b, w, group);
            for step in (0..w.steps).step_by(16) {
                // SAFETY: guaranteed by the caller.
                let block = unsafe { rows.transposed(step) };
                let dst = &mut dst[step * NR + group..];
                for (i, row) in block.iter().enumerate().take(w.steps - step) {
                    // SAFETY: sixteen words at column `group` of a row of the panel.
                    unsafe { _mm512_storeu_si512(dst[i * NR..][..16].as_mut_ptr().cast(), *row) };
                }
            }
        }
    }
}

impl VectorPacking for CopyAcross {
    #[inline(always)]
    unsafe fn pack<L: LoadAcross>(dst: &mut [u32], x: &[L::Element], b: &Matrix, w: PackWindow) {
        let columns = ColumnGroup::<L>::new(x, b, w, 0);
        let (rows, _) = dst.as_chunks_mut::<NR>();
        for (step, row) in rows.iter_mut().enumerate().take(w.steps) {
            // SAFETY: guaranteed by the caller; a row of the panel holds two vectors of sixteen words.
            unsafe {
                let [low, high] = columns.words(step);
                _mm512_storeu_si512(row.as_mut_ptr().cast(), low);
                _mm512_storeu_si512(row.as_mut_ptr().add(16).cast(), high);
            }
        }
    }
}

impl VectorPacking for TransposeAcross {
    #[inline(always)]
    unsafe fn pack<L: LoadAcross>(dst: &mut [u32], x: &[L::Element], a: &Matrix, w: PackWindow) {
        for outer in (0..w.count).step_by(32) {
            let rows = ColumnGroup::<L>::new(x, a, w, outer);
            for step in (0..w.steps).step_by(16) {
                // SAFETY: an integer vector of zeros.
                let mut halves = unsafe { [[_mm512_setzero_si512(); 16]; 2] };
                for i in 0..(w.steps - step).min(16) {
                    // SAFETY: guaranteed by the caller.
                    let words = unsafe { rows.words(step + i) };
                    halves.iter_mut().zip(words).for_each(|(half, words)| half[i] = words);
                }
                for (half, first) in
                    halves.into_iter().zip([0, 16]).filter(|&(_, first)| first < rows.count())
                {
                    // SAFETY: guaranteed by the caller.
                    let block = unsafe { transpose(half) };
                    for (i, words) in block.iter().enumerate().take(rows.count() - first) {
                        let dst = &mut dst[(outer + first + i) * KC_WORDS + step..][..16];
                        // SAFETY: sixteen words of a row, which holds a multiple of sixteen.
                        unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), *words) };
                    }
                }
            }
        }
    }
}
