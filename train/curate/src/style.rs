//! The styles of instruction by name; `styles` makes their tasks.

use crate::language::Language;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A way to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// The description and the signature are given, the code is the answer.
    #[default]
    Write,
    /// The comment, the head and the first statements are given.
    Complete,
    /// The code is given, the answer is what its comment says.
    Explain,
    /// The code made worse without a change of meaning is given.
    Refactor,
    /// The code with a bug is given.
    Fix,
    /// The code is given, the answer asserts the examples of its comment.
    Test,
}

impl Style {
    pub const ALL: [Style; 6] =
        [Style::Write, Style::Complete, Style::Explain, Style::Refactor, Style::Fix, Style::Test];

    /// As it is written on the command line and in rows.
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

    /// Why an item gives no row of this style.
    pub fn lacking(self) -> &'static str {
        match self {
            Style::Write => "no-comment",
            Style::Complete => "too-few-statements",
            Style::Explain => "too-little-said",
            Style::Refactor => "nothing-to-refactor",
            Style::Fix => "nothing-to-break",
            Style::Test => "no-example",
        }
    }

    /// Whether it reads that language: most take the syntax tree of TypeScript, which is JavaScript's too.
    pub fn knows(self, language: Language) -> bool {
        match self {
            Style::Write | Style::Explain => true,
            _ => matches!(language, Language::TypeScript | Language::JavaScript),
        }
    }

    /// Whether the answer is the item's code, which needs what it uses.
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
