//! The input of a style, and the task that it makes.

use crate::comment::DocComment;
use crate::extract::Item;
use crate::item_rng::ItemRng;
use crate::parsed_code::ParsedCode;
use crate::row::ItemKind;

/// An instruction and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub instruction: String,
    pub output: String,
}

/// An item with its comment and a source of random choices.
pub struct StyleInput<'a> {
    pub item: &'a Item,
    pub doc: &'a DocComment,
    /// True if the file is parsed with the grammar of TSX.
    pub tsx: bool,
    pub rng: ItemRng,
}

impl StyleInput<'_> {
    /// Parses code of the item.
    pub fn program(&self, code: &str) -> Option<ParsedCode> {
        ParsedCode::parse(code, self.item.kind, self.tsx)
    }

    /// `TypeScript async function `f``, `method `m` of the TypeScript class `C``.
    pub fn name(&self) -> String {
        let Item { noun, name, .. } = self.item;
        let (language, owner) = (self.item.language.table().name, self.item.language.table().owner);
        match (self.item.kind, name.split_once('.')) {
            (ItemKind::Method, Some((class, own))) => {
                format!("{noun} `{own}` of the {language} {owner} `{class}`")
            }
            _ => format!("{language} {noun} `{name}`"),
        }
    }

    /// Code in a Markdown fence.
    pub fn fenced(&self, code: &str) -> String {
        let language = if self.tsx { "tsx".to_string() } else { self.item.language.name() };
        format!("```{language}\n{code}\n```")
    }
}
