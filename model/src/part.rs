//! The part of a stored tensor that a rank holds.

use codelsi_engine::{Error, Result, Shape};
use std::ops::Range;

/// Which elements of a row-major tensor are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Whole,
    /// Of a matrix, or elements of a vector.
    Rows(Range<usize>),
    /// Of a matrix.
    Columns(Range<usize>),
    /// Elements in storage order, as a vector; those beyond the tensor's end are zeros.
    Flat(Range<usize>),
}

impl Part {
    /// The dimensions of this part of a tensor of `shape`.
    ///
    /// # Errors
    /// When the tensor has more than four dimensions, has no such rows or columns, or is no matrix where it must be one.
    pub fn shape(&self, shape: &[usize]) -> Result<Shape> {
        if shape.len() > 4 {
            return Err(Error::new(format!("a tensor of {} dimensions; at most 4 are read", shape.len())));
        }
        match (self, shape) {
            (Part::Whole, _) => Ok(Shape::from(shape)),
            (Part::Rows(rows), [n, rest @ ..]) if rows.start <= rows.end && rows.end <= *n => {
                Ok(Shape::from(&[&[rows.len()], rest].concat()[..]))
            }
            (Part::Columns(columns), [n, width]) if columns.start <= columns.end && columns.end <= *width => {
                Ok([*n, columns.len()].into())
            }
            (Part::Flat(elements), _) => Ok([elements.len()].into()),
            _ => Err(Error::new(format!("a tensor of shape {shape:?} has no {self:?}"))),
        }
    }

    /// Where this part begins in a tensor of `shape`, when it lies there in one run.
    pub(crate) fn in_one_run(&self, shape: &[usize]) -> Option<usize> {
        let (runs, part) = (self.runs(shape), self.shape(shape).ok()?);
        (runs.count == 1 && runs.length == part.elements()).then_some(runs.start)
    }

    /// Where the elements of this part lie in a tensor of `shape`, run by run.
    pub(crate) fn runs(&self, shape: &[usize]) -> Runs {
        let all: usize = shape.iter().product();
        let row = shape.iter().skip(1).product::<usize>();
        let one = |range: Range<usize>| Runs { start: range.start, length: range.len(), stride: 0, count: 1 };
        match self {
            Part::Whole => one(0..all),
            Part::Rows(rows) => one(rows.start * row..rows.end * row),
            Part::Columns(columns) => {
                Runs { start: columns.start, length: columns.len(), stride: row, count: shape[0] }
            }
            Part::Flat(elements) => one(elements.start.min(all)..elements.end.min(all)),
        }
    }
}

/// Runs of neighbouring elements at equal distances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Runs {
    pub start: usize,
    pub length: usize,
    pub stride: usize,
    pub count: usize,
}

impl Runs {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.length * self.count
    }

    /// The stored places of this part's elements `range`, in order and cut at the ends of runs.
    pub fn within(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let (run, offset) = (at / self.length.max(1), at % self.length.max(1));
            let length = (self.length - offset).min(range.end.saturating_sub(at));
            let start = self.start + run * self.stride + offset;
            at += length;
            (length > 0).then_some(start..start + length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements of a (4, 3) matrix of 0, 1, 2, ….
    fn elements(part: &Part) -> Vec<usize> {
        let runs = part.runs(&[4, 3]);
        // In pieces that end inside of runs.
        (0..runs.elements())
            .step_by(2)
            .flat_map(|i| runs.within(i..runs.elements().min(i + 2)).flatten())
            .collect()
    }

    #[test]
    fn parts_name_their_elements_and_shapes() {
        for (part, expected, shape) in [
            (Part::Whole, (0..12).collect::<Vec<_>>(), vec![4, 3]),
            (Part::Rows(1..3), (3..9).collect(), vec![2, 3]),
            (Part::Columns(1..3), vec![1, 2, 4, 5, 7, 8, 10, 11], vec![4, 2]),
            (Part::Flat(7..10), vec![7, 8, 9], vec![3]),
            (Part::Flat(10..15), vec![10, 11], vec![5]),
            (Part::Flat(15..20), vec![], vec![5]),
            (Part::Columns(2..2), vec![], vec![4, 0]),
        ] {
            assert_eq!(
                (elements(&part), &part.shape(&[4, 3]).unwrap()[..]),
                (expected, &shape[..]),
                "{part:?}"
            );
        }
        assert_eq!(Part::Rows(1..2).shape(&[5]).unwrap()[..], [1]);
    }

    #[test]
    fn what_a_tensor_has_not_is_refused() {
        for (part, shape) in [
            (Part::Rows(3..5), &[4, 3][..]),
            (Part::Columns(0..4), &[4, 3]),
            (Part::Columns(0..1), &[4]),
            (Part::Whole, &[1; 5]),
        ] {
            assert!(part.shape(shape).is_err(), "{part:?} {shape:?}");
        }
    }
}
