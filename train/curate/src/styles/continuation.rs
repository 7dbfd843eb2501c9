//! Style `continue`: the comment and the head of a function, as a source file has them; the answer is the body. It is the
//! form of a completion benchmark's prompts (MultiPL-E, arXiv 2208.08227), and of what an editor asks for.

use super::input::{StyleInput, Task};
use crate::row::ItemKind;

/// Makes the task, if the item is a function whose body is a block.
pub fn task(input: &StyleInput) -> Option<Task> {
    if input.item.kind != ItemKind::Function {
        return None;
    }
    let code = &input.item.code;
    let program = input.program(code)?;
    let bodies = program.nodes().into_iter().filter_map(|node| node.child_by_field_name("body"));
    let body = bodies.into_iter().find(|body| body.kind() == "statement_block")?;
    let head = code.get(..=body.start_byte())?;
    let rest = code.get(body.start_byte() + 1..)?.strip_prefix('\n')?;
    Some(Task { instruction: line_comment(&input.doc.description) + head, output: rest.into() })
}

/// Writes a description as line comments.
fn line_comment(description: &str) -> String {
    description.lines().map(|line| format!("//{}\n", line.trim_end())).collect()
}
