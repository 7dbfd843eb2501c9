//! Style `complete`: a comment, a head and the first statements; the answer is the whole.

use super::subject::{Subject, Task};
use super::tree::Program;
use tree_sitter::Node;

pub fn task(subject: &Subject) -> Option<Task> {
    let program = subject.program(&subject.item.code)?;
    let statements = statements(&program)?;
    // At least one statement is given and at least one is left.
    let last = statements[subject.draw.below(0, statements.len() - 1)];
    let beginning = format!("{}\n{}", tidied(&subject.item.comment), program.up_to(last));
    Some(Task {
        instruction: format!("Complete the {}.\n\n{}", subject.name(), subject.fenced(&beginning)),
        output: subject.item.code.clone(),
    })
}

/// Statements of the item's own body, or members of a class, where there are two or more.
fn statements(program: &Program) -> Option<Vec<Node<'_>>> {
    let has_body = |node: &Node| node.child_by_field_name("body").is_some();
    // An overload has no body, and the class around a method is no part of the item.
    let body = program.nodes().into_iter().find(has_body)?.child_by_field_name("body")?;
    let parts = (0..body.named_child_count()).filter_map(|i| body.named_child(i));
    let parts: Vec<Node> = parts.filter(|part| part.kind() != "comment").collect();
    let of_statements = matches!(body.kind(), "statement_block" | "class_body");
    (of_statements && parts.len() >= 2).then_some(parts)
}

/// A comment whose lines lose the indentation they had in their file.
fn tidied(comment: &str) -> String {
    let lines = comment.lines().map(str::trim).enumerate();
    let lines = lines.map(|(i, line)| match i > 0 && line.starts_with('*') {
        true => format!(" {line}"),
        false => line.to_string(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
