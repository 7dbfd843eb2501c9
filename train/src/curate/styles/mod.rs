//! Styles of instruction: one item asked for, or asked about, in several ways.
//!
//! A style is a small function from an item and its comment to an instruction and an answer, or to nothing where it
//! could not be honest: what is no bug for sure is not called one, what the comment does not explain is not explained.
//! Choices depend on the seed and on where the item comes from, never on what else is read.

mod complete;
mod examples;
mod explain;
mod fix;
mod refactor;
mod rename;
mod tree;

use super::comment::Doc;
use super::extract::Item;
use super::instruction::instruction;
use super::{Kind, Language};
use codelsi_engine::rng::Key;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

/// What is asked and what is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub instruction: String,
    pub output: String,
}

/// An item as a style sees it.
pub struct Subject<'a> {
    pub item: &'a Item,
    pub doc: &'a Doc,
    /// The grammar with JSX reads it.
    pub tsx: bool,
    pub draw: Draw,
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

    /// The row of this style, where the item has what it takes.
    pub fn task(self, subject: &Subject) -> Option<Task> {
        match self {
            Style::Write => Some(Task {
                instruction: instruction(subject.item, subject.doc),
                output: subject.item.code.clone(),
            }),
            Style::Complete => complete::task(subject),
            Style::Explain => explain::task(subject),
            Style::Refactor => refactor::task(subject),
            Style::Fix => fix::task(subject),
            Style::Test => examples::task(subject),
        }
    }

    /// Whether the answer is the item's code, which needs what it uses.
    pub fn answers_with_code(self) -> bool {
        !matches!(self, Style::Explain | Style::Test)
    }

    pub(super) fn is_write(&self) -> bool {
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

impl Subject<'_> {
    fn program(&self, code: &str) -> Option<tree::Program> {
        tree::Program::parse(code, self.item.kind, self.tsx)
    }

    /// `TypeScript async function `f``, `method `m` of the TypeScript class `C``.
    fn name(&self) -> String {
        let Item { noun, name, .. } = self.item;
        let (language, owner) = (self.item.language.table().name, self.item.language.table().owner);
        match (self.item.kind, name.split_once('.')) {
            (Kind::Method, Some((class, own))) => {
                format!("{noun} `{own}` of the {language} {owner} `{class}`")
            }
            _ => format!("{language} {noun} `{name}`"),
        }
    }

    /// Code as it stands in a message.
    fn fenced(&self, code: &str) -> String {
        let language = if self.tsx { "tsx".to_string() } else { self.item.language.word() };
        format!("```{language}\n{code}\n```")
    }
}

/// Choices of one item in one style.
pub struct Draw(Key);

impl Draw {
    /// Keyed by the seed and by all that tells the item from others.
    pub fn new(seed: u64, parts: &[&str]) -> Draw {
        let mut digest = Sha256::new();
        digest.update(seed.to_le_bytes());
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let head: [u8; 8] = digest.finalize()[..8].try_into().expect("a digest has 32 bytes");
        Draw(Key { seed: u64::from_le_bytes(head), step: 0, site: 0 })
    }

    /// A seed for others' choices.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The `n`-th choice, one of `count`.
    pub fn below(&self, n: u32, count: usize) -> usize {
        self.0.words(n, 0)[0] as usize % count
    }
}

#[cfg(test)]
mod tests;
