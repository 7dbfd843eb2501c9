//! Counts of a curation run: items read, rows kept, and drops by reason.

use crate::benchmark::BenchmarkMatch;
use serde::Serialize;
use std::collections::BTreeMap;

/// The counts of a curation run: `read` equals `kept` plus the sum of `dropped`.
///
/// A dropped item counts once; a kept item counts once per style.
///
/// Reasons: `not-utf8` (files), `syntax` (items, and broken text without a readable item), `no-comment`,
/// `generated`, `licence`, `deprecated`, `too-short`, `too-long`, `minified`, `comment-heavy`, `secret`,
/// `benchmark`, `duplicate`, `near-duplicate`, `too-many-tokens`, `unspellable`, `other-language` (styles),
/// `teacher-malformed`, `teacher-quotes`, and for each style
/// [`InstructionStyle::missing_reason`](crate::InstructionStyle::missing_reason). The first reason that applies
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CurationCounts {
    pub read: usize,
    pub kept: usize,
    pub dropped: BTreeMap<&'static str, usize>,
    /// The items dropped because they repeat a benchmark problem.
    pub repeats: Vec<BenchmarkRepeat>,
    /// The length of each row: tokens of instruction and answer with a tokenizer, else lexical tokens of the answer.
    #[serde(skip)]
    pub lengths: Vec<usize>,
}

/// An item that repeats a benchmark problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BenchmarkRepeat {
    #[serde(flatten)]
    pub matched: BenchmarkMatch,
    pub path: String,
    pub name: String,
}

impl CurationCounts {
    /// Moves one kept row to the dropped ones.
    pub(crate) fn drop_kept(&mut self, reason: &'static str) {
        self.kept -= 1;
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// Counts `n` items or rows as read and dropped.
    pub(crate) fn drop(&mut self, reason: &'static str, n: usize) {
        self.read += n;
        *self.dropped.entry(reason).or_default() += n;
    }

    /// Counts an item as read and dropped for a benchmark problem.
    pub(crate) fn drop_repeat(&mut self, repeat: BenchmarkRepeat) {
        self.drop("benchmark", 1);
        self.repeats.push(repeat);
    }
}
