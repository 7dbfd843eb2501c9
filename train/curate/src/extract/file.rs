//! A parsed file and the text of its nodes.

use super::item::Item;
use crate::language::{Language, LanguageTable, named_children, walk};
use tree_sitter::Node;

/// A parsed source file, its items so far, and the table of its language.
pub struct ParsedFile<'a> {
    pub text: &'a str,
    pub language: Language,
    pub table: &'static LanguageTable,
    pub items: Vec<Item>,
}

/// The nodes of a declaration: the full statement, the part of it that the code keeps, and the declaration itself.
#[derive(Clone, Copy)]
pub struct DeclarationNodes<'t> {
    pub statement: Node<'t>,
    pub kept: Node<'t>,
    pub declaration: Node<'t>,
}

impl<'a> ParsedFile<'a> {
    /// Unwraps the declaration in a statement from `export`, decorators and templates.
    pub fn unwrapped<'t>(&self, statement: Node<'t>) -> Option<DeclarationNodes<'t>> {
        let mut nodes = DeclarationNodes { statement, kept: statement, declaration: statement };
        let mut inside_kept = false;
        while let Some(wrapper) = self.table.wrappers.iter().find(|w| w.kind == nodes.declaration.kind()) {
            nodes.declaration = match wrapper.field {
                "" => named_children(nodes.declaration).last(),
                field => nodes.declaration.child_by_field_name(field),
            }?;
            inside_kept |= wrapper.kept;
            if !inside_kept {
                nodes.kept = nodes.declaration;
            }
        }
        Some(nodes)
    }

    /// The docstring of a Python function or class.
    pub fn docstring<'t>(&self, declaration: Node<'t>) -> Option<Node<'t>> {
        let body = declaration.child_by_field_name("body").filter(|body| body.kind() == "block")?;
        let first = named_children(body).find(|n| !self.is_comment(*n))?;
        let string = first.named_child(0).filter(|_| first.kind() == "expression_statement")?;
        (string.kind() == "string" && first.named_child_count() == 1).then_some(string)
    }

    /// The number of characters in comments and docstrings below a node, and the depth of the nodes below it.
    pub fn measure(&self, node: Node) -> (usize, usize) {
        let (mut chars, mut deepest) = (0, 0);
        walk(node, |node, depth| {
            let is_comment = self.is_comment(node);
            let comment = if is_comment { Some(node) } else { self.docstring(node) };
            chars += comment.map_or(0, |comment| self.slice(comment).chars().count());
            deepest = deepest.max(depth);
            !is_comment
        });
        (chars, deepest)
    }

    pub fn is_comment(&self, node: Node) -> bool {
        self.table.comments.contains(&node.kind())
    }

    pub fn slice(&self, node: Node) -> &'a str {
        &self.text[node.byte_range()]
    }

    pub fn field(&self, node: Node, name: &str) -> Option<&'a str> {
        node.child_by_field_name(name).map(|n| self.slice(n))
    }

    /// The text of a node without the indentation of its first line.
    pub fn dedented(&self, node: Node) -> String {
        self.moved_left(node, self.slice(node))
    }

    /// The text of a node without its docstring and indentation; a body that is only a docstring becomes `...`.
    pub fn without(&self, node: Node, docstring: Node) -> String {
        let (start, end) = (docstring.start_byte(), docstring.end_byte());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest =
            self.text[end..node.end_byte()].split_once('\n').filter(|(line, _)| line.trim().is_empty());
        let before = &self.text[node.start_byte()..start];
        let code = match rest.filter(|_| self.text[line_start..start].trim().is_empty()) {
            Some((_, rest)) => format!("{}{rest}", &self.text[node.start_byte()..line_start]),
            None => format!("{before}...{}", &self.text[end..node.end_byte()]),
        };
        self.moved_left(node, &code)
    }

    pub fn moved_left(&self, node: Node, code: &str) -> String {
        let line_start = self.text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        let line = &self.text[line_start..];
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let lines = code.lines().map(|l| l.strip_prefix(indent).unwrap_or(l));
        lines.collect::<Vec<_>>().join("\n")
    }
}
