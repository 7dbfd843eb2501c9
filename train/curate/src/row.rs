//! The rows that curation writes: an instruction, its answer, and where they come from.

use crate::language::Language;
use crate::style::Style;
use codelsi_engine::Result;
use codelsi_model::jsonl;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a row's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Function,
    Method,
    Class,
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub instruction: String,
    pub output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    pub path: String,
    #[serde(default)]
    pub language: Language,
    pub name: String,
    pub kind: Kind,
    /// First and last line of the code in its file, counted from 1.
    #[serde(default)]
    pub lines: (usize, usize),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// How it asks; not written for [`Style::Write`].
    #[serde(default, skip_serializing_if = "Style::is_write")]
    pub style: Style,
    /// The model that wrote the instruction, and the code where it is evolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// In which round of evolution it was made; not written for what comes from a source.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evolved: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Writes the rows as JSON Lines, whole or not at all.
pub fn write(path: impl AsRef<Path>, rows: &[Row]) -> Result<()> {
    jsonl::write(path, rows)
}
