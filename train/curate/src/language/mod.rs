//! The languages that curation reads, each described by one table over its tree-sitter grammar.

mod table;
mod tables;
mod walk;

pub use table::{DocStyle, LanguageTable, SignatureForm};
pub use walk::{MAX_DEPTH, MAX_SCOPES, descendants, named_children, walk};

use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tree_sitter::{ParseOptions, ParseState, Parser, Point, Tree};

/// Maximum time for parsing one text; a file of a million lines takes a tenth of it.
const PARSE_LIMIT: Duration = Duration::from_secs(5);
/// Maximum bytes of one text: larger files are data.
const MAX_BYTES: usize = 16 << 20;

/// The reason why a text has no syntax tree. A syntax error is none: it is a node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// It takes longer than 5 seconds.
    TooSlow,
    /// It is longer than 16 MiB.
    TooLarge,
}

impl Unparsed {
    /// The name among the reasons to drop a file.
    pub fn reason(self) -> &'static str {
        match self {
            Unparsed::TooSlow => "too-slow",
            Unparsed::TooLarge => "too-large",
        }
    }
}

/// A source language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    TypeScript,
    JavaScript,
    Python,
    Java,
    Cpp,
    Rust,
}

impl Language {
    /// All languages.
    pub const ALL: [Language; 6] = [
        Language::TypeScript,
        Language::JavaScript,
        Language::Python,
        Language::Java,
        Language::Cpp,
        Language::Rust,
    ];

    /// The description of the language.
    pub fn table(self) -> &'static LanguageTable {
        match self {
            Language::TypeScript => &tables::TYPESCRIPT,
            Language::JavaScript => &tables::JAVASCRIPT,
            Language::Python => &tables::PYTHON,
            Language::Java => &tables::JAVA,
            Language::Cpp => &tables::CPP,
            Language::Rust => &tables::RUST,
        }
    }

    /// The language of a source file by its path; `None` for other files, for declaration files, and for installed or
    /// built code.
    pub fn from_path(path: &str) -> Option<Language> {
        let ends = |extensions: &[&str]| extensions.iter().any(|end| path.ends_with(end));
        let is_source = |table: &LanguageTable| {
            let excluded = |part: &str| table.excluded_folders.contains(&part);
            ends(table.extensions) && !ends(table.excluded_extensions) && !path.split('/').any(excluded)
        };
        Self::ALL.into_iter().find(|language| is_source(language.table()))
    }

    /// The language with the MultiPL-E code `code`, as `ts`.
    pub fn from_multipl_e_code(code: &str) -> Option<Language> {
        Self::ALL.into_iter().find(|language| language.table().extensions[0].trim_start_matches('.') == code)
    }

    /// The name on the command line, in rows and after a Markdown fence.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Returns whether `text` parses without an error.
    pub fn parses(self, text: &str, path: &str) -> bool {
        self.parse(text, path).is_ok_and(|tree| !tree.root_node().has_error())
    }

    /// Parses the text of a file; `path` selects the grammar.
    ///
    /// # Errors
    /// When the text is too large, or the parser takes too long.
    pub fn parse(self, text: &str, path: &str) -> Result<Tree, Unparsed> {
        if text.len() > MAX_BYTES {
            return Err(Unparsed::TooLarge);
        }
        let mut parser = Parser::new();
        parser
            .set_language(&(self.table().grammar)(path))
            .expect("the grammars are of this library's version");
        let started = Instant::now();
        let mut until_late = |_: &ParseState| match started.elapsed() < PARSE_LIMIT {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let bytes = text.as_bytes();
        let options = ParseOptions::new().progress_callback(&mut until_late);
        let mut read = |at: usize, _: Point| bytes.get(at..).unwrap_or_default();
        parser.parse_with_options(&mut read, None, Some(options)).ok_or(Unparsed::TooSlow)
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> Result<Language, String> {
        serde_json::from_value(name.into()).map_err(|_| {
            let names = Self::ALL.map(Language::name);
            format!("no such language: give one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_the_language_unless_it_is_not_source() {
        for (path, language) in [
            ("src/a.ts", Some(Language::TypeScript)),
            ("src/a.tsx", Some(Language::TypeScript)),
            ("src/a.d.ts", None),
            ("node_modules/a.ts", None),
            ("a.mjs", Some(Language::JavaScript)),
            ("a.min.js", None),
            ("dist/a.js", None),
            ("pkg/a.py", Some(Language::Python)),
            ("venv/a.py", None),
            ("src/main/java/A.java", Some(Language::Java)),
            ("lib/a.hpp", Some(Language::Cpp)),
            ("third_party/a.cc", None),
            ("src/a.rs", Some(Language::Rust)),
            ("target/a.rs", None),
            ("README.md", None),
        ] {
            assert_eq!(Language::from_path(path), language, "{path}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for (language, code) in Language::ALL.into_iter().zip(["ts", "js", "py", "java", "cpp", "rs"]) {
            let name = serde_json::to_value(language).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(language));
            assert_eq!(Language::from_multipl_e_code(code), Some(language));
        }
        assert!("cobol".parse::<Language>().unwrap_err().contains("typescript, javascript, python"));
    }

    /// Node kinds are strings: if a grammar renamed one, nothing would be found without an error.
    #[test]
    fn every_node_kind_of_a_table_is_in_its_grammar() {
        for language in Language::ALL {
            let table = language.table();
            let grammar = (table.grammar)("");
            let groups = [
                table.comments,
                table.containers,
                table.owners,
                table.functions,
                table.methods,
                table.holders,
                table.lambdas,
                table.overloads,
                table.decorators,
                table.modifiers,
                table.imports,
                table.calls,
                table.blocks,
                table.arguments,
                table.returns,
            ];
            let wrappers = table.wrappers.iter().map(|wrapper| wrapper.kind);
            let classes = table.classes.iter().map(|(kind, _)| *kind);
            for kind in groups.into_iter().flatten().copied().chain(wrappers).chain(classes) {
                assert_ne!(grammar.id_for_node_kind(kind, true), 0, "{language:?}: {kind}");
            }
        }
    }
}
