//! Styles of instruction: one item asked for, or asked about, in several ways.
//!
//! A style is a small function from an item and its comment to an instruction and an answer, or to nothing where it
//! could not be honest: what is no bug for sure is not called one, what the comment does not explain is not explained.
//! Choices depend on the seed and on where the item comes from, never on what else is read.

mod complete;
mod examples;
mod explain;
mod fix;
mod refactor;
mod rename;
mod subject;
mod tree;

pub use subject::{Subject, Task};

use crate::instruction::instruction;
use crate::style::Style;

/// The row of this style, where the item has what it takes.
pub fn task(style: Style, subject: &Subject) -> Option<Task> {
    match style {
        Style::Write => Some(Task {
            instruction: instruction(subject.item, subject.doc),
            output: subject.item.code.clone(),
        }),
        Style::Complete => complete::task(subject),
        Style::Explain => explain::task(subject),
        Style::Refactor => refactor::task(subject),
        Style::Fix => fix::task(subject),
        Style::Test => examples::task(subject),
    }
}

#[cfg(test)]
mod tests;
