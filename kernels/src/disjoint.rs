//! A slice that parallel tasks write in disjoint ranges.

use std::marker::PhantomData;

/// A slice whose disjoint ranges are written by parallel tasks.
pub(crate) struct DisjointSlice<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the ranges that tasks hold do not overlap (the contract of `slice`).
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        DisjointSlice { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Returns the `len` elements from `start` on.
    ///
    /// # Safety
    /// No other range in use overlaps it.
    #[expect(clippy::mut_from_ref, reason = "ranges are disjoint")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len, "range {start}..+{len} of a slice of {}", self.len);
        // SAFETY: inside of the slice, and disjoint from the others by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
