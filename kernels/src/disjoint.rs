//! One slice written by many tasks, each its own part.

use std::marker::PhantomData;

/// A slice whose disjoint parts are handed to parallel tasks.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts that tasks hold do not overlap (the contract of `slice`).
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The part of `len` elements from `at`.
    ///
    /// # Safety
    /// No other part in use overlaps it.
    #[allow(clippy::mut_from_ref, reason = "parts are disjoint")]
    pub(crate) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at + len <= self.len, "part {at}..+{len} of a slice of {}", self.len);
        // SAFETY: inside the slice, and disjoint by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
