//! What stands before a declaration and belongs to it.

use super::file::{File, Place};
use tree_sitter::Node;

#[derive(Default)]
pub(super) struct Lead<'t> {
    pub decorators: Vec<Node<'t>>,
    pub overloads: Vec<Node<'t>>,
    /// Nearest first.
    comments: Vec<Node<'t>>,
}

impl<'t> Lead<'t> {
    /// Walks back from a declaration over comments without a gap, decorators, and overloads of `name`.
    pub fn of(file: &File, place: Place<'t>, name: &str) -> Lead<'t> {
        let mut lead = Lead::default();
        let is_decorator = |node: &Node| file.table.decorators.contains(&node.kind());
        // Decorators inside of a wrapper whose text the code does not keep.
        if place.statement != place.kept {
            let mut cursor = place.statement.walk();
            lead.decorators.extend(place.statement.children(&mut cursor).filter(is_decorator));
        }
        let mut next = place.statement;
        while let Some(node) = next.prev_named_sibling() {
            let touches = last_row(file, node) + 1 >= next.start_position().row;
            if file.is_comment(node) && touches && !trails(file, node) {
                lead.comments.push(node);
            } else if is_decorator(&node) {
                lead.decorators.insert(0, node);
            } else if let Some(overload) = overload(file, node, name) {
                // The comment of the first overload speaks for all.
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

    /// The nearest comment that is marked as documentation, or else the nearest: one block, or the lines that follow
    /// each other.
    pub fn comment(&self, file: &File) -> String {
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

/// Whether a comment ends the line of what comes before it, and so speaks of that.
fn trails(file: &File, comment: Node) -> bool {
    comment.prev_sibling().is_some_and(|p| last_row(file, p) == comment.start_position().row)
}

/// The last line that a node has text on; Rust's documentation comments hold their line break.
fn last_row(file: &File, node: Node) -> usize {
    node.end_position().row - usize::from(file.slice(node).ends_with('\n'))
}

fn overload<'t>(file: &File, statement: Node<'t>, name: &str) -> Option<Node<'t>> {
    let node = file.unwrapped(statement)?.declaration;
    let is_one = file.table.overloads.contains(&node.kind()) && file.field(node, "name") == Some(name);
    is_one.then_some(node)
}
