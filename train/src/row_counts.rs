//! Counts of the rows of a run's files: trained on, cut, or left out.

use crate::data::listed;
use crate::file_counts::{FileCounts, LeftOut};
use codelsi_engine::printable;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The rows that a run trains on and validates with, and those that it leaves out or cuts, by reason and by file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    pub training: usize,
    pub validation: usize,
    /// Maximum tokens of a row: `--seq`, or the model's context where that is shorter.
    pub seq: usize,
    #[serde(flatten)]
    pub left_out: LeftOut,
    /// Rows in a prompt template of their own.
    pub own_template: usize,
    /// Rows that fill a hole.
    pub infilling: usize,
    /// Keys that are no part of a conversation, with the number of rows that have them.
    pub unused_keys: BTreeMap<String, usize>,
    /// The files in the order in which they were read: data, replay, validation.
    pub files: Vec<FileCounts>,
    /// Files in the folders that hold no rows.
    pub other_files: Vec<PathBuf>,
}

/// Files that are shown one by one.
const SHOWN_FILES: usize = 16;

fn shown(path: &Path) -> String {
    printable(&path.display().to_string().replace('\n', " "), 200)
}

impl fmt::Display for RowCounts {
    /// The rows, the files with what each lost, and the files and keys that were not read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftOut { truncated, too_long, .. } = self.left_out;
        write!(f, "rows: {} to train on, {} to validate", self.training, self.validation)?;
        write!(f, "; {truncated} cut to {} tokens, {too_long} dropped as too long", self.seq)?;
        write!(f, "{}", LeftOut { truncated: 0, too_long: 0, ..self.left_out })?;
        if self.own_template > 0 {
            write!(f, "; {} in the template that they name", self.own_template)?;
        }
        if self.infilling > 0 {
            write!(f, "; {} to infill", self.infilling)?;
        }
        let (files, more) = self.files.split_at(self.files.len().min(SHOWN_FILES));
        for file in files {
            write!(f, "\n  read {}: {} rows{}", shown(&file.path), file.rows, file.left_out)?;
        }
        if !more.is_empty() {
            let rows: usize = more.iter().map(|file| file.rows).sum();
            write!(f, "\n  read {} more files: {rows} rows{}", more.len(), LeftOut::of(more))?;
        }
        if !self.other_files.is_empty() {
            let names: Vec<String> = self.other_files.iter().map(|path| path.display().to_string()).collect();
            let names = listed(names.iter().map(|name| (name.as_str(), String::new())));
            write!(f, "\nnot read, for they are no files of rows: {names}")?;
        }
        if !self.unused_keys.is_empty() {
            let keys = self.unused_keys.iter().map(|(key, rows)| (key.as_str(), format!(" ({rows})")));
            write!(f, "\nkeys that are not used (rows with them): {}", listed(keys))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_left_out_are_named_and_keys_are_harmless() {
        let plain = RowCounts { training: 3, seq: 9, ..RowCounts::default() };
        assert_eq!(
            plain.to_string(),
            "rows: 3 to train on, 0 to validate; 0 cut to 9 tokens, 0 dropped as too long"
        );
        let keys = [("repo".to_string(), 2), ("\u{1b}[2J".to_string(), 1), ("k".repeat(100), 1)];
        let file = |path: &str, without_form| FileCounts {
            path: path.into(),
            rows: 10,
            left_out: LeftOut { without_answer: 2, without_form, ..LeftOut::default() },
            ..FileCounts::default()
        };
        let some = RowCounts {
            own_template: 6,
            infilling: 8,
            unused_keys: keys.into(),
            left_out: LeftOut::of(&[file("a", 0), file("b", 5)]),
            files: vec![file("a.jsonl", 0), file("b\u{1b}.parquet", 5)],
            other_files: vec!["README.md".into()],
            ..plain
        };
        let text = some.to_string();
        assert!(text.contains("4 dropped as without an answer, 5 dropped as conversations"), "{text}");
        assert!(text.contains("; 6 in the template that they name; 8 to infill\n"), "{text}");
        assert!(text.contains("  read a.jsonl: 10 rows, 2 dropped as without an answer\n"), "{text}");
        assert!(
            text.contains(".parquet: 10 rows, 2 dropped as without an answer, 5 dropped as conv"),
            "{text}"
        );
        assert!(text.contains("\nnot read, for they are no files of rows: `README.md`\n"), "{text}");
        let many = RowCounts { files: vec![file("a.jsonl", 1); 40], ..RowCounts::default() };
        assert!(many.to_string().contains("read 24 more files: 240 rows, 48 dropped as"), "{many}");
        assert!(text.contains("`repo` (2)") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("60 characters left out") && !text.contains(&"k".repeat(41)), "{text}");
    }
}
