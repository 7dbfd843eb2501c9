//! The options of a curation run.

use crate::language::Language;
use crate::style::Style;
use std::path::PathBuf;

/// What to read and what to keep.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders, `.jsonl` or `.jsonl.gz` corpora; their order is the order of the rows.
    pub paths: Vec<PathBuf>,
    /// Whose files count.
    pub languages: Vec<Language>,
    /// Problem files in MultiPL-E's form that training must not have seen.
    pub against: Vec<PathBuf>,
    /// A row that resembles an earlier one by this share or more of their token n-grams is dropped; `None` keeps it.
    pub resemblance: Option<f64>,
    pub limits: Limits,
    /// A `tokenizer.json` or its folder: rows are measured in the tokens of its model.
    pub tokenizer: Option<PathBuf>,
    /// The rows of an item, in this order.
    pub styles: Vec<Style>,
    /// Whether instructions tell the imports and signatures that an item uses.
    pub context: bool,
    /// Keys every choice of the styles and of a teacher.
    pub seed: u64,
    /// Who rewrites rows after [`run`](crate::run); see [`teacher::teach`](crate::teacher::teach).
    pub lessons: Option<Lessons>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            paths: Vec::new(),
            languages: vec![Language::TypeScript],
            against: Vec::new(),
            resemblance: None,
            limits: Limits::default(),
            tokenizer: None,
            styles: vec![Style::Write],
            context: false,
            seed: 42,
            lessons: None,
        }
    }
}

/// The sizes a row may have. The defaults keep what a person would call a function worth asking for and
/// fit a sequence of 4096 tokens with room to spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Characters of code.
    pub min_chars: usize,
    pub max_chars: usize,
    /// Lines of code.
    pub min_lines: usize,
    pub max_lines: usize,
    /// Characters of the longest line; longer ones are data or minified.
    pub max_line: usize,
    /// Characters of the mean line; with more the code was minified.
    pub max_mean_line: usize,
    /// Percent of the code's characters that are comments.
    pub max_commented: usize,
    /// Words of the comment's description.
    pub min_words: usize,
    /// Characters of the instruction, code aside.
    pub max_instruction: usize,
    /// Tokens of instruction and answer, where a tokenizer is given.
    pub max_tokens: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_chars: 60,
            max_chars: 6000,
            min_lines: 3,
            max_lines: 200,
            max_line: 400,
            max_mean_line: 120,
            max_commented: 60,
            min_words: 3,
            max_instruction: 2500,
            max_tokens: 4096,
        }
    }
}

/// Which teacher the rows of a set had, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lessons {
    pub teacher: String,
    /// Rounds of evolution.
    pub evolve: usize,
}
