//! A bug: one edit of a CUDA file.

use codelsi_engine::DType;
use codelsi_engine::cuda::Source;

/// A wrong edit, and where it shows.
pub struct Bug {
    /// The file's name, as sources give it.
    pub file: &'static str,
    /// Text of the file, and which of its occurrences if there are several.
    find: &'static str,
    nth: Option<usize>,
    replace: &'static str,
    /// What is wrong, for people.
    pub breaks: &'static str,
    /// The case that is enough to show it.
    pub dtype: DType,
    pub case: &'static str,
    /// The numbers of the early schedule are right all the same: only a check can see it.
    pub quiet: bool,
    /// Why no check sees it.
    pub missed: Option<&'static str>,
}

impl Bug {
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

    pub const fn quiet(self) -> Bug {
        Bug { quiet: true, ..self }
    }

    pub const fn missed(self, why: &'static str) -> Bug {
        Bug { missed: Some(why), ..self }
    }

    /// Whether the edited file is a part of `source` that is its own, not every kernel's.
    pub fn is_in(&self, source: &Source) -> bool {
        self.file != "prelude.cuh" && self.includes(source)
    }

    fn includes(&self, source: &Source) -> bool {
        source.name == self.file || source.headers.iter().any(|h| h.0 == self.file)
    }

    /// `source` with the bug in it, if it has the file; it is kept for the life of the process.
    pub fn applied(&self, source: &Source) -> Result<Option<&'static Source>, String> {
        if !self.includes(source) {
            return Ok(None);
        }
        let edited = |(name, text): (&'static str, &'static str)| -> Result<_, String> {
            Ok((name, if name == self.file { self.edit(text)?.leak() } else { text }))
        };
        let (name, text) = edited((source.name, source.text))?;
        let headers: Vec<_> = source.headers.iter().map(|&h| edited(h)).collect::<Result<_, _>>()?;
        Ok(Some(Box::leak(Box::new(Source {
            name,
            text,
            headers: headers.leak(),
            variants: source.variants,
        }))))
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
