//! An item's code as a syntax tree, and changes of it that the parser can still read.

use crate::row::Kind;
use std::ops::Range;
use tree_sitter::{Language, Node, Parser, Tree};

/// A method stands in a class, and is no program without one.
const CLASS: (&str, &str) = ("class _ {\n", "\n}");

/// Code and its tree.
pub struct Program {
    text: String,
    tree: Tree,
    /// Where the item is in `text`.
    item: Range<usize>,
    kind: Kind,
    tsx: bool,
}

/// A range of the program's bytes and what is to stand there.
pub struct Edit {
    pub at: Range<usize>,
    pub text: String,
}

impl Program {
    /// Reads one item; `None` where the parser finds an error.
    pub fn parse(code: &str, kind: Kind, tsx: bool) -> Option<Program> {
        Program::read(code, kind, tsx).filter(|program| !program.tree.root_node().has_error())
    }

    /// Reads statements among which there may be what is no code.
    pub fn parse_loosely(code: &str, tsx: bool) -> Option<Program> {
        Program::read(code, Kind::Function, tsx)
    }

    fn read(code: &str, kind: Kind, tsx: bool) -> Option<Program> {
        let language: Language = match tsx {
            true => tree_sitter_typescript::LANGUAGE_TSX,
            false => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
        }
        .into();
        let (before, after) = if kind == Kind::Method { CLASS } else { ("", "") };
        let text = format!("{before}{code}{after}");
        let mut parser = Parser::new();
        parser.set_language(&language).ok()?;
        let tree = parser.parse(&text, None)?;
        Some(Program { item: before.len()..before.len() + code.len(), text, tree, kind, tsx })
    }

    /// The item's text.
    pub fn code(&self) -> &str {
        &self.text[self.item.clone()]
    }

    /// Every named node of the item, a node before what it holds.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        let mut nodes = below(self.tree.root_node());
        nodes.retain(|node| self.item.start <= node.start_byte() && node.end_byte() <= self.item.end);
        nodes
    }

    pub fn text(&self, node: Node) -> &str {
        &self.text[node.byte_range()]
    }

    /// The text from the item's start to the end of `node`.
    pub fn up_to(&self, node: Node) -> &str {
        &self.text[self.item.start..node.end_byte()]
    }

    /// White space at the start of the line that `node` starts on.
    pub fn indent(&self, node: Node) -> &str {
        let line = self.text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[line..];
        &rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()]
    }

    /// The program after edits that do not overlap; `None` where it does not parse any more or is as before.
    pub fn edited(&self, mut edits: Vec<Edit>) -> Option<Program> {
        edits.sort_by_key(|edit| edit.at.start);
        let (mut code, mut done) = (String::new(), self.item.start);
        for edit in edits {
            code.push_str(self.text.get(done..edit.at.start)?);
            code.push_str(&edit.text);
            done = edit.at.end;
        }
        code.push_str(&self.text[done..self.item.end]);
        Program::parse(&code, self.kind, self.tsx).filter(|_| code != self.code())
    }
}

/// Every named node of a tree, a node before what it holds.
pub fn below(root: Node) -> Vec<Node> {
    let (mut nodes, mut open) = (Vec::new(), vec![root]);
    while let Some(node) = open.pop() {
        nodes.push(node);
        open.extend((0..node.named_child_count()).rev().filter_map(|i| node.named_child(i)));
    }
    nodes
}

/// The node itself and all around it, nearest first.
pub fn around(node: Node) -> impl Iterator<Item = Node> {
    std::iter::successors(Some(node), Node::parent)
}

/// An edit of a whole node.
pub fn replace(node: Node, text: impl Into<String>) -> Edit {
    Edit { at: node.byte_range(), text: text.into() }
}
