//! Working memory of the CPU twins. It begins with a cache line, so that no vector lies across two, and is kept by its thread
//! for the next one: neither the system's allocator nor zeroing is part of an op.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// The words of a cache line, and of a vector register of AVX-512.
const WORDS: usize = 16;
/// Arrays that a thread keeps, at most: more than an op has at once.
const KEPT: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u32; WORDS]);

thread_local! {
    static FREE: RefCell<Vec<Vec<CacheLine>>> = const { RefCell::new(Vec::new()) };
}

/// An array of f32 or u32 whose first element begins a cache line.
pub(crate) struct AlignedVec<T> {
    lines: Vec<CacheLine>,
    len: usize,
    elements: std::marker::PhantomData<T>,
}

impl<T: Pod> AlignedVec<T> {
    /// Returns `len` elements of arbitrary content.
    pub fn scratch(len: usize) -> Self {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<CacheLine>());
        AlignedVec { lines: take(lines), len, elements: std::marker::PhantomData }
    }

    /// Makes it `len` long, with arbitrary content.
    pub fn resize(&mut self, len: usize) {
        match len * size_of::<T>() <= self.lines.len() * size_of::<CacheLine>() {
            true => self.len = len,
            false => *self = AlignedVec::scratch(len),
        }
    }

    /// Returns `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut zeros = AlignedVec::scratch(len);
        zeros.fill(T::zeroed());
        zeros
    }
}

/// Returns at least `count` lines: what was used last, so that it is in a cache, or new ones.
fn take(count: usize) -> Vec<CacheLine> {
    if count == 0 {
        return Vec::new();
    }
    let kept = FREE.with_borrow_mut(|free| {
        let fitting = free.iter().rposition(|lines| lines.len() >= count);
        fitting.map(|i| free.remove(i))
    });
    kept.unwrap_or_else(|| bytemuck::zeroed_vec(count))
}

impl<T> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            free.push(lines);
            if free.len() > KEPT {
                free.remove(0);
            }
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_uses_memory_again_and_zeros_are_zero() {
        let mut first = AlignedVec::<f32>::zeros(1000);
        first.fill(1.0);
        let address = first.as_ptr();
        assert_eq!(address.addr() % 64, 0);
        drop(first);
        let zeros = AlignedVec::<f32>::zeros(900);
        assert_eq!((zeros.as_ptr(), zeros.len()), (address, 900));
        assert!(zeros.iter().all(|&x| x == 0.0));
        assert_ne!(AlignedVec::<u32>::scratch(900).as_ptr().addr(), address.addr());
    }
}
