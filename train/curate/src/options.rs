//! The options of a curation run.

use crate::language::Language;
use crate::style::InstructionStyle;
use std::path::PathBuf;

/// The options of a curation run: sources to read, filters, and styles of the rows.
#[derive(Clone, Debug)]
pub struct CurateOptions {
    /// Folders of sources, or `.jsonl` and `.jsonl.gz` corpora; their order is the order of the rows.
    pub paths: Vec<PathBuf>,
    /// The languages whose files are read.
    pub languages: Vec<Language>,
    /// Benchmark problems (MultiPL-E JSON Lines); items that repeat one are dropped.
    pub against: Vec<PathBuf>,
    /// Jaccard similarity of token n-grams at which an item is dropped as a near-duplicate; `None` keeps
    /// near-duplicates.
    pub near_duplicate_threshold: Option<f64>,
    /// Sizes that a row may have.
    pub limits: RowLimits,
    /// A `tokenizer.json` or its folder, to measure rows in tokens of a model.
    pub tokenizer: Option<PathBuf>,
    /// Rules of secrets in gitleaks' format, besides our own.
    pub secret_rules: Option<PathBuf>,
    /// Styles of instruction: each item gives one row per style, in this order.
    pub styles: Vec<InstructionStyle>,
    /// Adds the imports and signatures that an item uses to its instructions.
    pub context: bool,
    /// Seed of all random choices of the styles and the teacher.
    pub seed: u64,
    /// The teacher that rewrites rows after [`run`](crate::run); see
    /// [`rewrite_with_teacher`](crate::teacher::rewrite_with_teacher).
    pub teacher: Option<TeacherSettings>,
}

impl Default for CurateOptions {
    fn default() -> Self {
        CurateOptions {
            paths: Vec::new(),
            languages: vec![Language::TypeScript],
            against: Vec::new(),
            near_duplicate_threshold: None,
            limits: RowLimits::default(),
            tokenizer: None,
            secret_rules: None,
            styles: vec![InstructionStyle::Write],
            context: false,
            seed: 42,
            teacher: None,
        }
    }
}

/// The sizes that a row may have. The defaults keep functions of a useful size that fit well into a sequence of 4096
/// tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLimits {
    /// Minimum characters of code.
    pub min_chars: usize,
    /// Maximum characters of code.
    pub max_chars: usize,
    /// Minimum lines of code.
    pub min_lines: usize,
    /// Maximum lines of code.
    pub max_lines: usize,
    /// Maximum characters of a line; longer lines are data or minified code.
    pub max_line: usize,
    /// Maximum mean characters per line; minified code has more.
    pub max_mean_line: usize,
    /// Maximum share of comments in the characters of the code, in percent.
    pub max_commented: usize,
    /// Minimum words of the description.
    pub min_words: usize,
    /// Maximum characters of the instruction without code.
    pub max_instruction: usize,
    /// Maximum tokens of instruction and answer, if a tokenizer is given.
    pub max_tokens: usize,
}

impl Default for RowLimits {
    fn default() -> Self {
        RowLimits {
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

/// The teacher of a set of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeacherSettings {
    /// Name of the teacher model.
    pub teacher: String,
    /// Rounds of evolution (Evol-Instruct).
    pub evolve: usize,
}
