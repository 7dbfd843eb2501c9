//! The account of a curation run: what was read, kept, and dropped for which reason.

use crate::benchmark::Match;
use serde::Serialize;
use std::collections::BTreeMap;

/// What became of all that was found: `read` is `kept` and every `dropped` together.
///
/// An item that is dropped counts once; of one that is kept every style counts.
///
/// Reasons: `not-utf8` (files), `syntax` (items, and stretches that hold none that can be read), `no-comment`, `generated`, `licence`, `deprecated`, `too-short`,
/// `too-long`, `minified`, `comment-heavy`, `secret`, `benchmark`, `duplicate`, `near-duplicate`, `too-many-tokens`,
/// `unspellable`, `other-language` (styles), `teacher-malformed`, `teacher-quotes`, and for each style [`Style::lacking`](crate::Style::lacking); the first that
/// applies counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub read: usize,
    pub kept: usize,
    pub dropped: BTreeMap<&'static str, usize>,
    /// Every item that was dropped because it repeats a benchmark problem.
    pub repeats: Vec<Repeat>,
    /// The length of each row: tokens of instruction and answer where there is a tokenizer, else lexical tokens of the
    /// answer.
    #[serde(skip)]
    pub lengths: Vec<usize>,
}

/// An item that repeats a benchmark problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeat {
    #[serde(flatten)]
    pub of: Match,
    pub path: String,
    pub name: String,
}

impl Counts {
    /// A row that was kept is not any more.
    pub(crate) fn lose(&mut self, reason: &'static str) {
        self.kept -= 1;
        *self.dropped.entry(reason).or_default() += 1;
    }

    pub(crate) fn drop(&mut self, reason: &'static str, n: usize) {
        self.read += n;
        *self.dropped.entry(reason).or_default() += n;
    }

    pub(crate) fn repeat(&mut self, repeat: Repeat) {
        self.drop("benchmark", 1);
        self.repeats.push(repeat);
    }
}
