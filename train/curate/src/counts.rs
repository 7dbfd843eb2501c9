//! Counts of a curation run: items read, rows kept, and drops by reason.

use crate::benchmark::BenchmarkMatch;
use crate::language::Unparsed;
use serde::Serialize;
use std::collections::BTreeMap;

/// The counts of a curation run: `read` equals `kept` plus the sum of `dropped`.
///
/// A dropped item counts once; a kept item counts once per style.
///
/// Reasons: `not-utf8`, `too-large` and `too-slow` (files), `syntax` (items, and broken text without a readable item),
/// `too-deep` (items, and scopes nested too deep), `no-comment`,
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
    /// The items and rows dropped because they hold a secret.
    pub secrets: Vec<FoundSecret>,
    /// The files dropped because the parser was stopped.
    pub unread: Vec<UnreadFile>,
    /// The secret rules of a file that are not taken, each with the cause.
    pub ignored_secret_rules: Vec<String>,
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

/// The place of a secret, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundSecret {
    pub path: String,
    /// Line in the file, counted from 1.
    pub line: usize,
    /// Name of the item.
    pub name: String,
    /// Name of the rule that found it.
    pub rule: String,
}

/// A file without a syntax tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadFile {
    pub path: String,
    pub reason: &'static str,
}

/// The reason why an item or a row is dropped.
#[derive(Debug)]
pub enum DropReason {
    Filter(&'static str),
    Benchmark(BenchmarkRepeat),
    Secret(FoundSecret),
    Unread(UnreadFile),
}

impl From<&'static str> for DropReason {
    fn from(reason: &'static str) -> DropReason {
        DropReason::Filter(reason)
    }
}

impl UnreadFile {
    /// A file that the parser did not read.
    pub(crate) fn new(path: &str, cause: Unparsed) -> UnreadFile {
        UnreadFile { path: path.to_string(), reason: cause.reason() }
    }
}

impl CurationCounts {
    /// Moves one kept row to the dropped ones.
    pub(crate) fn drop_kept(&mut self, reason: impl Into<DropReason>) {
        self.kept -= 1;
        self.read -= 1;
        self.drop_one(reason);
    }

    /// Counts `n` items or rows as read and dropped.
    pub(crate) fn drop(&mut self, reason: &'static str, n: usize) {
        self.read += n;
        *self.dropped.entry(reason).or_default() += n;
    }

    /// Counts one item, row or file as read and dropped, with its place where the reason has one.
    pub(crate) fn drop_one(&mut self, reason: impl Into<DropReason>) {
        match reason.into() {
            DropReason::Filter(reason) => self.drop(reason, 1),
            DropReason::Benchmark(repeat) => {
                self.drop("benchmark", 1);
                self.repeats.push(repeat);
            }
            DropReason::Secret(secret) => {
                self.drop("secret", 1);
                self.secrets.push(secret);
            }
            DropReason::Unread(file) => {
                self.drop(file.reason, 1);
                self.unread.push(file);
            }
        }
    }
}
