//! The rows that curation writes: an instruction or a hole, its output, and their provenance.

use crate::language::Language;
use crate::style::InstructionStyle;
use codelsi_engine::Result;
use codelsi_model::jsonl;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The kind of an item: a function, a method or a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    Function,
    Method,
    Class,
}

/// A row: one line of the output file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CuratedRow {
    /// Empty where there is a hole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// The text around a hole that the output fills.
    #[serde(flatten)]
    pub hole: Option<Hole>,
    pub output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    pub path: String,
    #[serde(default)]
    pub language: Language,
    pub name: String,
    pub kind: ItemKind,
    /// First and last line of the code in its file, counted from 1.
    #[serde(default)]
    pub lines: (usize, usize),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The style of the instruction; [`InstructionStyle::Write`] is not written out.
    #[serde(default, skip_serializing_if = "InstructionStyle::is_write")]
    pub style: InstructionStyle,
    /// The name of the prompt template that the row is in, where it is not that of the training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The teacher model that wrote the instruction (and, if `evolved` > 0, the code).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// The round of evolution that made the row; 0, which is not written out, for code of a source.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evolved: usize,
}

impl CuratedRow {
    /// The text that the model is given, without a template.
    pub fn prompt(&self) -> String {
        match &self.hole {
            Some(Hole { prefix, suffix }) => format!("{prefix}{suffix}"),
            None => self.instruction.clone(),
        }
    }

    /// The whole text: of instruction and answer, or of the file without a hole.
    pub fn text(&self) -> String {
        match &self.hole {
            Some(Hole { prefix, suffix }) => format!("{prefix}{}{suffix}", self.output),
            None => format!("{}\n{}", self.instruction, self.output),
        }
    }
}

/// The text around a hole in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub prefix: String,
    pub suffix: String,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Writes the rows as JSON Lines, atomically.
///
/// # Errors
/// A file that cannot be written.
pub fn write_rows(path: impl AsRef<Path>, rows: &[CuratedRow]) -> Result<()> {
    jsonl::write(path, rows)
}
