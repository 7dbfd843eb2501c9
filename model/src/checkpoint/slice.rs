//! The slice of a stored tensor that a rank reads.

use codelsi_engine::{Error, Result, Shape};
use std::ops::Range;

/// Elements of a row-major tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TensorSlice {
    /// All elements.
    Full,
    /// Rows of a matrix, or elements of a vector.
    Rows(Range<usize>),
    /// Columns of a matrix.
    Columns(Range<usize>),
    /// Elements in storage order, as a vector; those beyond the tensor's end are zeros.
    Flat(Range<usize>),
}

impl TensorSlice {
    /// Returns the shape of this slice of a tensor of `shape`.
    ///
    /// # Errors
    /// When the tensor has more than four dimensions, lacks the rows or columns, or is not a matrix where it must
    /// be one.
    pub fn shape(&self, shape: &[usize]) -> Result<Shape> {
        if shape.len() > 4 {
            return Err(Error::new(format!(
                "a tensor of {} dimensions; at most 4 are supported",
                shape.len()
            )));
        }
        match (self, shape) {
            (TensorSlice::Full, _) => Ok(Shape::from(shape)),
            (TensorSlice::Rows(rows), [n, rest @ ..]) if rows.start <= rows.end && rows.end <= *n => {
                Ok(Shape::from(&[&[rows.len()], rest].concat()[..]))
            }
            (TensorSlice::Columns(columns), [n, width])
                if columns.start <= columns.end && columns.end <= *width =>
            {
                Ok([*n, columns.len()].into())
            }
            (TensorSlice::Flat(elements), _) => Ok([elements.len()].into()),
            _ => Err(Error::new(format!("a tensor of shape {shape:?} has no {self:?}"))),
        }
    }

    /// Returns the index of this slice's first element in a tensor of `shape`, if its elements are contiguous there.
    pub(super) fn contiguous_start(&self, shape: &[usize]) -> Option<usize> {
        let (runs, slice) = (self.runs(shape), self.shape(shape).ok()?);
        (runs.count == 1 && runs.length == slice.elements()).then_some(runs.start)
    }

    /// Copies this slice's elements out of the `values` of a full tensor of `shape`.
    pub(crate) fn select(&self, shape: &[usize], values: &[f32]) -> Vec<f32> {
        let runs = self.runs(shape);
        runs.stored_ranges(0..runs.elements()).flat_map(|range| values[range].iter().copied()).collect()
    }

    /// Returns the contiguous runs that make up this slice of a tensor of `shape`.
    pub(super) fn runs(&self, shape: &[usize]) -> Runs {
        let all: usize = shape.iter().product();
        let row = shape.iter().skip(1).product::<usize>();
        let one = |range: Range<usize>| Runs { start: range.start, length: range.len(), stride: 0, count: 1 };
        match self {
            TensorSlice::Full => one(0..all),
            TensorSlice::Rows(rows) => one(rows.start * row..rows.end * row),
            TensorSlice::Columns(columns) => {
                Runs { start: columns.start, length: columns.len(), stride: row, count: shape[0] }
            }
            TensorSlice::Flat(elements) => one(elements.start.min(all)..elements.end.min(all)),
        }
    }
}

/// Runs of contiguous elements, all of one length and at equal distances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Runs {
    pub start: usize,
    pub length: usize,
    pub stride: usize,
    pub count: usize,
}

impl Runs {
    /// Number of elements of all runs.
    pub fn elements(&self) -> usize {
        self.length * self.count
    }

    /// Returns the index ranges, in the stored tensor, of the slice's elements `range`: in order, split at the ends
    /// of runs.
    pub fn stored_ranges(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut next = range.start;
        std::iter::from_fn(move || {
            let (run, offset) = (next / self.length.max(1), next % self.length.max(1));
            let length = (self.length - offset).min(range.end.saturating_sub(next));
            let start = self.start + run * self.stride + offset;
            next += length;
            (length > 0).then_some(start..start + length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Indices of the elements of a slice of a (4, 3) matrix of 0, 1, 2, ….
    fn elements(slice: &TensorSlice) -> Vec<usize> {
        let runs = slice.runs(&[4, 3]);
        // In pieces that end inside of runs.
        (0..runs.elements())
            .step_by(2)
            .flat_map(|i| runs.stored_ranges(i..runs.elements().min(i + 2)).flatten())
            .collect()
    }

    #[test]
    fn slices_name_their_elements_and_shapes() {
        for (slice, expected, shape) in [
            (TensorSlice::Full, (0..12).collect::<Vec<_>>(), vec![4, 3]),
            (TensorSlice::Rows(1..3), (3..9).collect(), vec![2, 3]),
            (TensorSlice::Columns(1..3), vec![1, 2, 4, 5, 7, 8, 10, 11], vec![4, 2]),
            (TensorSlice::Flat(7..10), vec![7, 8, 9], vec![3]),
            (TensorSlice::Flat(10..15), vec![10, 11], vec![5]),
            (TensorSlice::Flat(15..20), vec![], vec![5]),
            (TensorSlice::Columns(2..2), vec![], vec![4, 0]),
        ] {
            assert_eq!(
                (elements(&slice), &slice.shape(&[4, 3]).unwrap()[..]),
                (expected, &shape[..]),
                "{slice:?}"
            );
        }
        assert_eq!(TensorSlice::Rows(1..2).shape(&[5]).unwrap()[..], [1]);
    }

    #[test]
    fn slices_outside_of_the_tensor_are_refused() {
        for (slice, shape) in [
            (TensorSlice::Rows(3..5), &[4, 3][..]),
            (TensorSlice::Columns(0..4), &[4, 3]),
            (TensorSlice::Columns(0..1), &[4]),
            (TensorSlice::Full, &[1; 5]),
        ] {
            assert!(slice.shape(shape).is_err(), "{slice:?} {shape:?}");
        }
    }
}
