//! Working memory of the CPU twins that begins with a cache line, so that no vector lies across two.

use bytemuck::{Pod, Zeroable};
use std::ops::{Deref, DerefMut};

/// The words of a cache line, and of a vector register of AVX-512.
const WORDS: usize = 16;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u32; WORDS]);

/// A growable array of f32 or u32 whose first element begins a cache line.
pub(crate) struct AlignedVec<T> {
    lines: Vec<CacheLine>,
    len: usize,
    elements: std::marker::PhantomData<T>,
}

impl<T> Default for AlignedVec<T> {
    fn default() -> Self {
        AlignedVec { lines: Vec::new(), len: 0, elements: std::marker::PhantomData }
    }
}

impl<T: Pod> AlignedVec<T> {
    /// Returns `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut zeros = AlignedVec::default();
        zeros.resize(len);
        zeros
    }

    /// Makes it `len` long; new elements are zero, or what was there when it was as long before.
    pub fn resize(&mut self, len: usize) {
        self.len = len;
        let lines = (len * size_of::<T>()).div_ceil(size_of::<CacheLine>());
        if lines > self.lines.len() {
            self.lines.resize(lines, CacheLine::zeroed());
        }
    }
}

impl<T: Pod> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
