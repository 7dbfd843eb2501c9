//! Style `test`: given the code; the answer asserts the examples of its comment, each a call and its value.

use super::input::{StyleInput, Task};
use crate::examples::{CommentExamples, Example};
use crate::row::ItemKind;

/// Makes the task, if the comment has an example of a function or static method.
pub fn task(input: &StyleInput) -> Option<Task> {
    let item = input.item;
    if item.kind == ItemKind::Class || (item.kind == ItemKind::Method && !item.noun.contains("static")) {
        return None;
    }
    let examples = CommentExamples::read(&item.comment, &item.name, input.tsx).examples;
    if examples.is_empty() {
        return None;
    }
    let assertions: Vec<String> = examples.iter().map(Example::assertion).collect();
    Some(Task {
        instruction: format!(
            "Write a test of the {} with `node:assert`.\n\n{}\n\n{}",
            input.name(),
            input.doc.description,
            input.fenced(&item.code)
        ),
        output: format!("import assert from 'node:assert';\n\n{}", assertions.join("\n")),
    })
}
