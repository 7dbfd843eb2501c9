//! An item as a style sees it, and the task that a style makes of it.

use super::tree::Program;
use crate::comment::Doc;
use crate::draw::Draw;
use crate::extract::Item;
use crate::row::Kind;

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

impl Subject<'_> {
    pub fn program(&self, code: &str) -> Option<Program> {
        Program::parse(code, self.item.kind, self.tsx)
    }

    /// `TypeScript async function `f``, `method `m` of the TypeScript class `C``.
    pub fn name(&self) -> String {
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
    pub fn fenced(&self, code: &str) -> String {
        let language = if self.tsx { "tsx".to_string() } else { self.item.language.word() };
        format!("```{language}\n{code}\n```")
    }
}
