//! Dimensions of a contiguous, row-major tensor.

use std::fmt;
use std::ops::Deref;

/// Up to four dimensions, stored inline.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Returns `(rows, columns)`, with all leading dimensions folded into the rows.
    pub fn as_matrix(&self) -> (usize, usize) {
        let columns = self.last().copied().unwrap_or(1);
        (self[..self.len().saturating_sub(1)].iter().product(), columns)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape::from(&dims[..])
    }
}

impl From<&[usize]> for Shape {
    /// # Panics
    /// With more than four dimensions; no op of this workspace has them.
    fn from(dims: &[usize]) -> Self {
        let mut shape = Shape { dims: [0; 4], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.iter().map(usize::to_string).collect();
        write!(f, "({})", dims.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
