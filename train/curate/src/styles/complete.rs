//! Style `complete`: given the comment, the head and the first statements; the answer is the complete code.

use super::input::{StyleInput, Task};
use crate::language::named_children;
use crate::parsed_code::ParsedCode;
use tree_sitter::Node;

/// Makes the task, if the body has two statements or more.
pub fn task(input: &StyleInput) -> Option<Task> {
    let program = input.program(&input.item.code)?;
    let statements = body_statements(&program)?;
    // At least one statement is given and at least one is missing.
    let last = statements[input.rng.below(0, statements.len() - 1)];
    let beginning = format!("{}\n{}", dedented(&input.item.comment), program.up_to(last));
    Some(Task {
        instruction: format!("Complete the {}.\n\n{}", input.name(), input.fenced(&beginning)),
        output: input.item.code.clone(),
    })
}

/// The statements of the item's body, or the members of a class, if there are two or more.
fn body_statements(program: &ParsedCode) -> Option<Vec<Node<'_>>> {
    let has_body = |node: &Node| node.child_by_field_name("body").is_some();
    // Overloads have no body, and the class around a method is not part of the item.
    let body = program.nodes().into_iter().find(has_body)?.child_by_field_name("body")?;
    let parts: Vec<Node> = named_children(body).filter(|part| part.kind() != "comment").collect();
    let of_statements = matches!(body.kind(), "statement_block" | "class_body");
    (of_statements && parts.len() >= 2).then_some(parts)
}

/// A comment without the indentation of its file.
fn dedented(comment: &str) -> String {
    let lines = comment.lines().map(str::trim).enumerate();
    let lines = lines.map(|(i, line)| match i > 0 && line.starts_with('*') {
        true => format!(" {line}"),
        false => line.to_string(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
