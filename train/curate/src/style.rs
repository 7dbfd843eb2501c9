//! The styles of instruction; `styles` makes the task of each.

use crate::language::Language;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A style of instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Given the description and the signature, write the code.
    #[default]
    Write,
    /// Given the comment, the head and the first statements, complete the code.
    Complete,
    /// Given the code, explain it as its comment does.
    Explain,
    /// Given a less readable equivalent, write the code.
    Refactor,
    /// Given the code with a bug, fix it.
    Fix,
    /// Given the code, write a test of the examples in its comment.
    Test,
}

impl Style {
    /// All styles.
    pub const ALL: [Style; 6] =
        [Style::Write, Style::Complete, Style::Explain, Style::Refactor, Style::Fix, Style::Test];

    /// The name on the command line and in rows.
    pub fn name(self) -> &'static str {
        match self {
            Style::Write => "write",
            Style::Complete => "complete",
            Style::Explain => "explain",
            Style::Refactor => "refactor",
            Style::Fix => "fix",
            Style::Test => "test",
        }
    }

    /// The reason counted when an item gives no row of this style.
    pub fn missing_reason(self) -> &'static str {
        match self {
            Style::Write => "no-comment",
            Style::Complete => "too-few-statements",
            Style::Explain => "too-little-said",
            Style::Refactor => "nothing-to-refactor",
            Style::Fix => "nothing-to-break",
            Style::Test => "no-example",
        }
    }

    /// Returns whether the style supports `language`: most styles read the syntax tree of TypeScript and JavaScript.
    pub fn supports(self, language: Language) -> bool {
        match self {
            Style::Write | Style::Explain => true,
            _ => matches!(language, Language::TypeScript | Language::JavaScript),
        }
    }

    /// Returns whether the answer is the item's code, so that the imports and signatures it uses help.
    pub fn answers_with_code(self) -> bool {
        !matches!(self, Style::Explain | Style::Test)
    }

    pub(crate) fn is_write(&self) -> bool {
        *self == Style::Write
    }
}

impl FromStr for Style {
    type Err = Error;

    fn from_str(name: &str) -> Result<Style> {
        let names = || Style::ALL.map(Style::name).join(", ");
        let known = Style::ALL.into_iter().find(|style| style.name() == name);
        known.ok_or_else(|| Error::new(format!("no style `{name}`; there are {}", names())))
    }
}
