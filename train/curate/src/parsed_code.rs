//! The syntax tree of an item's code, and edits that are checked to parse.

use crate::language::{Language, descendants};
use crate::row::ItemKind;
use std::ops::Range;
use tree_sitter::{Node, Tree};

/// A method is wrapped in a class, since it does not parse alone.
const CLASS_WRAPPER: (&str, &str) = ("class _ {\n", "\n}");

/// Code and its syntax tree.
pub struct ParsedCode {
    text: String,
    tree: Tree,
    /// The range of the item in `text`.
    item: Range<usize>,
    kind: ItemKind,
    tsx: bool,
}

/// A replacement of a range of bytes of the program.
pub struct Edit {
    pub at: Range<usize>,
    pub text: String,
}

impl ParsedCode {
    /// Parses an item; `None` if there is a syntax error.
    pub fn parse(code: &str, kind: ItemKind, tsx: bool) -> Option<ParsedCode> {
        ParsedCode::read(code, kind, tsx).filter(|program| !program.tree.root_node().has_error())
    }

    /// Parses statements that may be mixed with other text.
    pub fn parse_loosely(code: &str, tsx: bool) -> Option<ParsedCode> {
        ParsedCode::read(code, ItemKind::Function, tsx)
    }

    fn read(code: &str, kind: ItemKind, tsx: bool) -> Option<ParsedCode> {
        let (before, after) = if kind == ItemKind::Method { CLASS_WRAPPER } else { ("", "") };
        let text = format!("{before}{code}{after}");
        let tree = Language::TypeScript.parse(&text, if tsx { ".tsx" } else { ".ts" }).ok()?;
        Some(ParsedCode { item: before.len()..before.len() + code.len(), text, tree, kind, tsx })
    }

    /// The text of the item.
    pub fn code(&self) -> &str {
        &self.text[self.item.clone()]
    }

    /// The root of the tree.
    pub fn root(&self) -> Node<'_> {
        self.tree.root_node()
    }

    /// The named nodes of the item in pre-order.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        let mut nodes = descendants(self.tree.root_node());
        nodes.retain(|node| self.item.start <= node.start_byte() && node.end_byte() <= self.item.end);
        nodes
    }

    /// The text of a node.
    pub fn text(&self, node: Node) -> &str {
        &self.text[node.byte_range()]
    }

    /// The text of the item up to the end of `node`.
    pub fn up_to(&self, node: Node) -> &str {
        &self.text[self.item.start..node.end_byte()]
    }

    /// The indentation of the line where `node` starts.
    pub fn indent(&self, node: Node) -> &str {
        let line = self.text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[line..];
        &rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()]
    }

    /// Applies edits that do not overlap; `None` if the result does not parse or is unchanged.
    pub fn edited(&self, mut edits: Vec<Edit>) -> Option<ParsedCode> {
        edits.sort_by_key(|edit| edit.at.start);
        let (mut code, mut done) = (String::new(), self.item.start);
        for edit in edits {
            code.push_str(self.text.get(done..edit.at.start)?);
            code.push_str(&edit.text);
            done = edit.at.end;
        }
        code.push_str(&self.text[done..self.item.end]);
        ParsedCode::parse(&code, self.kind, self.tsx).filter(|_| code != self.code())
    }
}

/// A node and its ancestors, from the node upwards.
pub fn ancestors(node: Node) -> impl Iterator<Item = Node> {
    std::iter::successors(Some(node), Node::parent)
}

/// Replaces a node.
pub fn replace(node: Node, text: impl Into<String>) -> Edit {
    Edit { at: node.byte_range(), text: text.into() }
}
