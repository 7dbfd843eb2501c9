//! A slice that parallel tasks write in disjoint ranges.

use crate::simd::Storage;
use codelsi_engine::{Result, Tensor};
use std::marker::PhantomData;
use std::ops::Range;

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

/// A matrix whose disjoint ranges of rows are written by parallel tasks.
pub(crate) struct DisjointRows<'a, T> {
    all: DisjointSlice<'a, T>,
    pub columns: usize,
}

impl<'a, T: Storage> DisjointRows<'a, T> {
    /// The rows of a host tensor.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn new(matrix: &'a mut Tensor) -> Result<Self> {
        let (_, columns) = matrix.shape().as_matrix();
        Ok(DisjointRows { all: DisjointSlice::new(matrix.slice_mut()?), columns })
    }

    /// Returns the elements of a range of rows.
    ///
    /// # Safety
    /// No other range in use overlaps it.
    #[expect(clippy::mut_from_ref, reason = "ranges are disjoint")]
    pub unsafe fn rows(&self, rows: &Range<usize>) -> &mut [T] {
        // SAFETY: guaranteed by the caller.
        unsafe { self.all.slice(rows.start * self.columns, rows.len() * self.columns) }
    }
}
