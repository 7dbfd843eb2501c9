//! The nodes before a declaration that belong to it: comments, decorators and overloads.

use super::file::{DeclarationNodes, ParsedFile};
use tree_sitter::Node;

/// The nodes before a declaration.
#[derive(Default)]
pub(super) struct LeadingNodes<'t> {
    pub decorators: Vec<Node<'t>>,
    pub overloads: Vec<Node<'t>>,
    /// Comments, the nearest one first.
    comments: Vec<Node<'t>>,
}

impl<'t> LeadingNodes<'t> {
    /// Collects them backwards from a declaration: comments without an empty line between, decorators, and overloads of
    /// `name`.
    pub fn of(file: &ParsedFile, nodes: DeclarationNodes<'t>, name: &str) -> LeadingNodes<'t> {
        let mut lead = LeadingNodes::default();
        let is_decorator = |node: &Node| file.table.decorators.contains(&node.kind());
        // Decorators inside a wrapper that the code does not keep.
        if nodes.statement != nodes.kept {
            let mut cursor = nodes.statement.walk();
            lead.decorators.extend(nodes.statement.children(&mut cursor).filter(is_decorator));
        }
        let mut next = nodes.statement;
        while let Some(node) = next.prev_named_sibling() {
            let touches = last_row(file, node) + 1 >= next.start_position().row;
            if file.is_comment(node) && touches && !trails(file, node) {
                lead.comments.push(node);
            } else if is_decorator(&node) {
                lead.decorators.insert(0, node);
            } else if let Some(overload) = overload(file, node, name) {
                // The comment of the first overload documents all of them.
                if node.prev_named_sibling().is_some_and(|p| file.is_comment(p)) {
                    lead.comments.clear();
                }
                lead.overloads.insert(0, overload);
            } else {
                break;
            }
            next = node;
        }
        lead
    }

    /// The nearest documentation comment, or else the nearest comment: one block, or consecutive lines.
    pub fn comment(&self, file: &ParsedFile) -> String {
        let comments: Vec<&str> = self.comments.iter().map(|c| file.slice(*c).trim_end()).collect();
        let documents = |c: &&str| file.table.doc_marks.iter().any(|mark| c.starts_with(mark));
        let Some(&nearest) = comments.iter().find(|c| documents(c)).or(comments.first()) else {
            return String::new();
        };
        if nearest.starts_with("/*") {
            return nearest.to_string();
        }
        let documented = documents(&nearest);
        let rest = comments.iter().skip_while(|c| documented && !documents(c));
        let lines = rest.take_while(|c| c.starts_with(file.table.line_comment) && documents(c) == documented);
        let mut lines: Vec<&str> = lines.copied().collect();
        lines.reverse();
        lines.join("\n")
    }
}

/// Returns whether a comment is at the end of a line of code, which it then documents.
fn trails(file: &ParsedFile, comment: Node) -> bool {
    comment.prev_sibling().is_some_and(|p| last_row(file, p) == comment.start_position().row)
}

/// The last line with text of a node; Rust's documentation comments include their line break.
fn last_row(file: &ParsedFile, node: Node) -> usize {
    node.end_position().row - usize::from(file.slice(node).ends_with('\n'))
}

/// The declaration in a statement that is an overload of `name`.
fn overload<'t>(file: &ParsedFile, statement: Node<'t>, name: &str) -> Option<Node<'t>> {
    let node = file.unwrapped(statement)?.declaration;
    let is_one = file.table.overloads.contains(&node.kind()) && file.field(node, "name") == Some(name);
    is_one.then_some(node)
}
