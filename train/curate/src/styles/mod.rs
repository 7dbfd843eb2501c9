//! Tasks in the styles of instruction: several tasks from one item.
//!
//! A style is a function from an item and its comment to an instruction and an answer. It returns `None` where the task
//! would be wrong: a change that may not be a bug is not called one, and code is explained only by what its comment
//! says. Random choices depend on the seed and on the provenance of the item, and on nothing else.

mod complete;
mod continuation;
mod examples;
mod explain;
mod fix;
mod input;
mod refactor;
mod rename;

pub use input::{StyleInput, Task};

use crate::instruction::instruction;
use crate::style::InstructionStyle;

/// Makes the task of a style; `None` if the item does not have what the style needs.
pub fn task(style: InstructionStyle, input: &StyleInput) -> Option<Task> {
    match style {
        InstructionStyle::Write => {
            Some(Task { instruction: instruction(input.item, input.doc), output: input.item.code.clone() })
        }
        InstructionStyle::Complete => complete::task(input),
        InstructionStyle::Explain => explain::task(input),
        InstructionStyle::Refactor => refactor::task(input),
        InstructionStyle::Fix => fix::task(input),
        InstructionStyle::Test => examples::task(input),
        InstructionStyle::Continue => continuation::task(input),
        // Its row has no instruction: a hole is cut where the file is at hand.
        InstructionStyle::Infill => None,
    }
}

#[cfg(test)]
mod tests;
