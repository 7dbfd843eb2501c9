//! The languages that curation reads, each one small table behind tree-sitter.

mod table;
mod tables;

pub use table::{DocStyle, Head, Table};

use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use tree_sitter::{Parser, Tree};

/// A language whose sources become rows.
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
    pub const ALL: [Language; 6] = [
        Language::TypeScript,
        Language::JavaScript,
        Language::Python,
        Language::Java,
        Language::Cpp,
        Language::Rust,
    ];

    /// What is known of it.
    pub fn table(self) -> &'static Table {
        match self {
            Language::TypeScript => &tables::TYPESCRIPT,
            Language::JavaScript => &tables::JAVASCRIPT,
            Language::Python => &tables::PYTHON,
            Language::Java => &tables::JAVA,
            Language::Cpp => &tables::CPP,
            Language::Rust => &tables::RUST,
        }
    }

    /// The language of a source; `None` for other files, declarations, and what was installed or built.
    pub fn of(path: &str) -> Option<Language> {
        let ends = |endings: &[&str]| endings.iter().any(|end| path.ends_with(end));
        let is_source = |table: &Table| {
            let left_out = |part: &str| table.not_folders.contains(&part);
            ends(table.endings) && !ends(table.not_endings) && !path.split('/').any(left_out)
        };
        Self::ALL.into_iter().find(|language| is_source(language.table()))
    }

    /// The language that MultiPL-E calls `code`.
    pub fn of_code(code: &str) -> Option<Language> {
        Self::ALL.into_iter().find(|language| language.table().endings[0].trim_start_matches('.') == code)
    }

    /// Its name on the command line, in rows and behind a Markdown fence.
    pub fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether its parser finds no error in `text`.
    pub fn parses(self, text: &str, path: &str) -> bool {
        self.parse(text, path).is_ok_and(|tree| !tree.root_node().has_error())
    }

    /// Parses `text`, of a file with this path.
    pub fn parse(self, text: &str, path: &str) -> Result<Tree> {
        let table = self.table();
        let mut parser = Parser::new();
        parser
            .set_language(&(table.grammar)(path))
            .map_err(|e| Error::new(format!("{} grammar: {e}", table.name)))?;
        parser.parse(text, None).ok_or_else(|| Error::new(format!("the {} parser gave up", table.name)))
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Language, String> {
        serde_json::from_value(name.into()).map_err(|_| {
            let names = Self::ALL.map(Language::word);
            format!("no such language: give one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_language_and_what_is_nobodys_source() {
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
            assert_eq!(Language::of(path), language, "{path}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for (language, code) in Language::ALL.into_iter().zip(["ts", "js", "py", "java", "cpp", "rs"]) {
            let name = serde_json::to_value(language).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(language));
            assert_eq!(Language::of_code(code), Some(language));
        }
        assert!("cobol".parse::<Language>().unwrap_err().contains("typescript, javascript, python"));
    }

    /// Node kinds are strings; a grammar that renames one would silently find nothing.
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
            ];
            let wrappers = table.wrappers.iter().map(|wrapper| wrapper.kind);
            let classes = table.classes.iter().map(|(kind, _)| *kind);
            for kind in groups.into_iter().flatten().copied().chain(wrappers).chain(classes) {
                assert_ne!(grammar.id_for_node_kind(kind, true), 0, "{language:?}: {kind}");
            }
        }
    }
}
