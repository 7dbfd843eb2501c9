//! The items that a file declares.

use crate::language::Language;
use crate::row::Kind;

/// A declaration with a body.
#[derive(Clone, Debug)]
pub struct Item {
    pub language: Language,
    pub kind: Kind,
    /// Of a method: `Class.method`.
    pub name: String,
    /// `name<T>(a: A): R` as the language has it, of a class its heading; on one line.
    pub signature: String,
    /// Words for what it is, as `async function` or `static method`.
    pub noun: String,
    /// The comment that documents it, or else its last run of line comments. May be empty.
    pub comment: String,
    /// Overloads and body, free of `export`, of indentation and of its docstring: an answer is a program, not a part
    /// of a module.
    pub code: String,
    /// The parser found an error in it.
    pub broken: bool,
    /// Characters of the code that are comments.
    pub commented: usize,
    /// First and last line of the code in its file, counted from 1.
    pub lines: (usize, usize),
    /// Import statements whose names it uses, in the order of the file.
    pub imports: Vec<String>,
    /// Signatures of the file's own other items that it calls, in the order of first use, eight at most.
    pub uses: Vec<String>,
}
