//! Documentation comments of six languages as prose, without comment markers, tags and markup.

mod doc;
mod docstring;
mod headings;
mod prose;
mod tags;

pub use doc::DocComment;

use crate::language::{DocStyle, Language};

/// Prefixes of directives to tools, which are not documentation.
const DIRECTIVES: [&str; 22] = [
    "eslint",
    "deno-lint",
    "deno-fmt",
    "biome-ignore",
    "prettier-ignore",
    "oxlint",
    "tslint",
    "@ts-",
    "istanbul",
    "c8 ",
    "v8 ",
    "#__",
    "@__",
    "#region",
    "noqa",
    "pylint:",
    "pragma:",
    "type: ignore",
    "NOLINT",
    "clang-format",
    "noinspection",
    "CHECKSTYLE",
];

impl DocComment {
    /// Parses a comment by the convention of `language`: a block, lines with a marker each, or a docstring.
    pub fn parse(comment: &str, language: Language) -> DocComment {
        match language.table().doc_style {
            DocStyle::Tags if language == Language::Java => {
                tags::parse(&without_markers(&tags::without_html(comment)))
            }
            DocStyle::Tags => tags::parse(&without_markers(comment)),
            DocStyle::Headings => headings::parse(&without_markers(comment)),
            DocStyle::Docstring if comment.starts_with('#') => docstring::parse(&without_markers(comment)),
            DocStyle::Docstring => docstring::parse(&docstring::unquoted(comment)),
        }
    }
}

/// The lines of a comment without its markers (`/**`, `*`, `*/`, `//`, `#`) and without directives.
pub fn without_markers(comment: &str) -> Vec<&str> {
    let mark = match comment.trim_start() {
        block if block.starts_with("/*") => '*',
        lines if lines.starts_with('#') => '#',
        _ => '/',
    };
    comment
        .trim()
        .trim_start_matches("/*")
        .trim_end_matches("*/")
        .lines()
        .map(|line| {
            let bare = line.trim().trim_start_matches(mark);
            // Doxygen's `//!`, `/*!`, `///<`.
            let bare = bare.strip_prefix(['!', '<']).unwrap_or(bare);
            bare.strip_prefix(' ').unwrap_or(bare).trim_end()
        })
        .filter(|line| !DIRECTIVES.iter().any(|d| line.trim_start().starts_with(d)))
        .collect()
}

#[cfg(test)]
mod tests;
