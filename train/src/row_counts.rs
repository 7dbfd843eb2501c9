//! Counts of the rows of a run's files: trained on, cut, or left out.

use crate::data::listed;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The rows that a run trains on and validates with, and those that it leaves out or cuts, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    pub training: usize,
    pub validation: usize,
    /// Maximum tokens of a row: `--seq`, or the model's context where that is shorter.
    pub seq: usize,
    /// Rows cut to `seq` tokens.
    pub truncated: usize,
    /// Rows left out because their prompt alone fills `seq` tokens.
    pub too_long: usize,
    /// Rows left out because they have no answer, or an empty one.
    pub without_answer: usize,
    /// Conversations left out because the template has no form for them.
    pub without_form: usize,
    /// Rows in a prompt template of their own.
    pub own_template: usize,
    /// Keys that are no part of a conversation, with the number of rows that have them.
    pub unused_keys: BTreeMap<String, usize>,
}

impl fmt::Display for RowCounts {
    /// One or two lines: the rows, and the keys that were not read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows: {} to train on, {} to validate", self.training, self.validation)?;
        write!(f, "; {} cut to {} tokens, {} dropped as too long", self.truncated, self.seq, self.too_long)?;
        if self.without_answer > 0 {
            write!(f, ", {} dropped as without an answer", self.without_answer)?;
        }
        if self.without_form > 0 {
            write!(f, ", {} dropped as conversations that the template cannot write", self.without_form)?;
        }
        if self.own_template > 0 {
            write!(f, "; {} in the template that they name", self.own_template)?;
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
        let some = RowCounts {
            without_answer: 4,
            without_form: 5,
            own_template: 6,
            unused_keys: keys.into(),
            ..plain
        };
        let text = some.to_string();
        assert!(text.contains("4 dropped as without an answer, 5 dropped as conversations"), "{text}");
        assert!(text.contains("; 6 in the template that they name"), "{text}");
        assert!(text.contains("`repo` (2)") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("60 characters left out") && !text.contains(&"k".repeat(41)), "{text}");
    }
}
