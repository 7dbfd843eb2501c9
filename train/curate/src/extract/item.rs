//! An item: a function, method or class of a source file.

use crate::language::Language;
use crate::row::ItemKind;
use std::ops::Range;

/// A declaration with a body, and the comment that documents it.
#[derive(Clone, Debug)]
pub struct Item {
    pub language: Language,
    pub kind: ItemKind,
    /// The name; `Class.method` for a method.
    pub name: String,
    /// The signature on one line in the form of the language, as `name<T>(a: A): R`; for a class its heading.
    pub signature: String,
    /// The words for the item, as `async function` or `static method`.
    pub noun: String,
    /// The documentation comment, or else the last run of line comments; may be empty.
    pub comment: String,
    /// The code with its overloads, without `export`, indentation and docstring: an answer is a program rather than a
    /// part of a module.
    pub code: String,
    /// True if the parser found an error in the item.
    pub broken: bool,
    /// True if its syntax tree, or the scopes around it, are nested too deep.
    pub too_deep: bool,
    /// Characters of the code that are comments.
    pub commented: usize,
    /// First and last line of the code in its file, counted from 1.
    pub lines: (usize, usize),
    /// The bytes of the code in the text of its file.
    pub bytes: Range<usize>,
    /// The import statements whose names the item uses, in the order of the file.
    pub imports: Vec<String>,
    /// The signatures of other items of the file that the item calls, in the order of first use, at most 8.
    pub uses: Vec<String>,
}
