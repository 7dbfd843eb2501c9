//! Curation: sources to `{instruction, output}` rows, offline.
//!
//! Every function, method and class that a comment describes becomes a row: the comment and the signature make the
//! instruction, the code is the output. Dropped items are counted by reason. The result depends on the sources alone:
//! the same bytes for any number of threads.
//!
//! Read in the order of the data: `source` finds files, `extract` finds the items in them, `candidate` filters the
//! items, `rows` makes a row of each in several styles, [`run`] runs all of these; [`teacher`] rewrites rows afterwards, and
//! [`specialize`] chooses among the rows of a private repository.

#![forbid(unsafe_code)]

mod benchmark;
mod candidate;
mod card;
mod comment;
mod counts;
mod duplicates;
mod examples;
mod extract;
mod filters;
mod fingerprint;
mod infill;
mod instruction;
mod item_rng;
mod language;
mod options;
mod parsed_code;
pub mod problems;
mod provenance;
mod row;
mod rows;
mod run;
mod secrets;
mod source;
pub mod specialize;
mod style;
mod styles;
pub mod teacher;

pub use benchmark::{Benchmark, BenchmarkMatch, BenchmarkProblem, MatchReason, problems_in};
pub use card::dataset_card;
pub use counts::{BenchmarkRepeat, CurationCounts, FoundSecret, UnreadFile};
pub use language::Language;
pub use options::{CurateOptions, RowLimits};
pub use row::{CuratedRow, Hole, ItemKind, write_rows};
pub use run::run;
pub use source::{SourceFile, has_sources, read_typescript_sources, typescript_repositories};
pub use style::InstructionStyle;

#[cfg(test)]
mod tests;
