//! Counts of the rows of a file: read, left out, cut.

use serde::Serialize;
use std::fmt;
use std::ops::Add;
use std::path::PathBuf;

/// The rows of a file, and those of them that are left out or cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileCounts {
    pub path: PathBuf,
    pub rows: usize,
    #[serde(flatten)]
    pub left_out: LeftOut,
    /// Number of its first row, see [`Example::row`].
    #[serde(skip)]
    pub(crate) first_row: usize,
}

impl FileCounts {
    /// Counts on from the rows of earlier files.
    pub(crate) fn after(self, rows: usize) -> FileCounts {
        FileCounts { first_row: self.first_row + rows, ..self }
    }
}

/// Rows that are left out or cut, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Rows cut to the length of a sequence.
    pub truncated: usize,
    /// Rows left out because their prompt alone fills a sequence.
    pub too_long: usize,
    /// Rows left out because they have no answer, or an empty one.
    pub without_answer: usize,
    /// Conversations left out because the template has no form for them.
    pub without_form: usize,
}

impl LeftOut {
    /// The sum over files.
    pub(crate) fn of(files: &[FileCounts]) -> LeftOut {
        files.iter().fold(LeftOut::default(), |sum, file| sum + file.left_out)
    }
}

impl Add for LeftOut {
    type Output = LeftOut;

    fn add(self, other: LeftOut) -> LeftOut {
        LeftOut {
            truncated: self.truncated + other.truncated,
            too_long: self.too_long + other.too_long,
            without_answer: self.without_answer + other.without_answer,
            without_form: self.without_form + other.without_form,
        }
    }
}

impl fmt::Display for LeftOut {
    /// Each reason that rows have, after a comma.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.truncated, "cut"),
            (self.too_long, "dropped as too long"),
            (self.without_answer, "dropped as without an answer"),
            (self.without_form, "dropped as conversations that the template cannot write"),
        ];
        let mut named = reasons.iter().filter(|(rows, _)| *rows > 0);
        named.try_for_each(|(rows, reason)| write!(f, ", {rows} {reason}"))
    }
}
