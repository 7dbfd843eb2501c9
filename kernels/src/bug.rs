//! Seeded bugs: edits of CUDA files that the checks must detect.
//!
//! An op's `bugs.rs` lists at least [`PER_SOURCE`] bugs of each of its sources. `tests/seeded_bugs.rs` compiles the
//! edited text instead of the original, and the bug's case must then fail.

use codelsi_engine::DType;
use codelsi_engine::cuda::Source;

/// Minimum number of bugs for each source.
pub const PER_SOURCE: usize = 3;

/// One wrong edit of a CUDA file, and a case that detects it.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The file's name, as in [`Source`].
    pub file: &'static str,
    /// Text of the file that is replaced.
    find: &'static str,
    /// The index of its occurrence, if it occurs more than once.
    nth: Option<usize>,
    replace: &'static str,
    /// A description of the fault, for reports.
    pub breaks: &'static str,
    /// Storage type and name of a case that detects it.
    pub dtype: DType,
    pub case: &'static str,
    /// True when the results in the early schedule are correct, so that only racecheck or the check of asynchronous
    /// copies detects it.
    pub quiet: bool,
    /// The reason why no check detects it.
    pub missed: Option<&'static str>,
}

impl Bug {
    /// Replaces `find`, which occurs once in `file`, by `replace`; `case` of storage type `dtype` must then fail.
    pub const fn new(
        file: &'static str,
        breaks: &'static str,
        [find, replace]: [&'static str; 2],
        (dtype, case): (DType, &'static str),
    ) -> Bug {
        Bug { file, find, nth: None, replace, breaks, dtype, case, quiet: false, missed: None }
    }

    /// Edits occurrence `n`, counted from 0, of text that occurs more than once.
    pub const fn nth(self, n: usize) -> Bug {
        Bug { nth: Some(n), ..self }
    }

    /// Sets [`Bug::quiet`].
    pub const fn quiet(self) -> Bug {
        Bug { quiet: true, ..self }
    }

    /// Sets [`Bug::missed`].
    pub const fn missed(self, why: &'static str) -> Bug {
        Bug { missed: Some(why), ..self }
    }

    /// True when the edited file is `source` or one of its headers, but not the prelude, which all share.
    pub fn is_in(&self, source: &Source) -> bool {
        self.file != "prelude.cuh" && self.includes(source)
    }

    fn includes(&self, source: &Source) -> bool {
        source.name == self.file || source.headers.iter().any(|h| h.0 == self.file)
    }

    /// Returns `source` with the bug, if it has the file. The copy is kept for the life of the process.
    ///
    /// # Errors
    /// When the text to replace does not occur, or not as often as the bug states.
    pub fn applied(&self, source: &Source) -> Result<Option<&'static Source>, String> {
        if !self.includes(source) {
            return Ok(None);
        }
        let edited = |(name, text): (&'static str, &'static str)| -> Result<_, String> {
            Ok((name, if name == self.file { self.edit(text)?.leak() } else { text }))
        };
        let text = edited((source.name, source.text))?.1;
        let headers: Vec<_> = source.headers.iter().map(|&h| edited(h)).collect::<Result<_, _>>()?;
        Ok(Some(Box::leak(Box::new(Source { text, headers: headers.leak(), ..*source }))))
    }

    fn edit(&self, text: &str) -> Result<String, String> {
        let found: Vec<usize> = text.match_indices(self.find).map(|m| m.0).collect();
        let at = match (&found[..], self.nth) {
            ([at], None) => Some(at),
            (all, Some(n)) if all.len() > 1 => all.get(n),
            _ => None,
        };
        let Some(&at) = at else {
            return Err(format!("`{}` occurs {} times, nth is {:?}", self.find, found.len(), self.nth));
        };
        Ok([&text[..at], self.replace, &text[at + self.find.len()..]].concat())
    }
}
