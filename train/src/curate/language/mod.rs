//! The languages that curation reads, each one small table behind tree-sitter.

mod tables;

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

/// What curation knows of a language. Strings without a word of explanation are node kinds of its grammar.
#[derive(Debug)]
pub struct Table {
    /// What a reader calls it.
    pub name: &'static str,
    /// Endings of its files; the first, without its dot, is MultiPL-E's name for the language.
    pub endings: &'static [&'static str],
    /// Longer endings of files that hold no code of their own.
    pub not_endings: &'static [&'static str],
    /// Folders of what was installed, copied in, or built.
    pub not_folders: &'static [&'static str],
    /// The grammar for a file of this path.
    pub grammar: fn(&str) -> tree_sitter::Language,
    pub comments: &'static [&'static str],
    /// Beginnings of comments that document what follows, which others do not.
    pub doc_marks: &'static [&'static str],
    /// Beginning of a comment to the end of the line.
    pub line_comment: &'static str,
    pub doc_style: DocStyle,
    /// What a reader calls that which has methods.
    pub owner: &'static str,
    /// What a function may raise is told under this word.
    pub raises: &'static str,
    /// What holds declarations and is none: namespaces, modules, branches of the preprocessor.
    pub containers: &'static [&'static str],
    /// What holds methods of the type in its field `type`.
    pub owners: &'static [&'static str],
    pub wrappers: &'static [Wrapper],
    /// Functions, whose name is their field `name` or in their field `declarator`.
    pub functions: &'static [&'static str],
    /// The same in classes.
    pub methods: &'static [&'static str],
    /// Constants and fields, which may hold a function.
    pub holders: &'static [&'static str],
    /// Functions that are expressions.
    pub lambdas: &'static [&'static str],
    /// Classes and the like, and what a reader calls each.
    pub classes: &'static [(&'static str, &'static str)],
    /// Heads without a body that stand before the function of that name.
    pub overloads: &'static [&'static str],
    pub decorators: &'static [&'static str],
    /// Nodes that hold keywords before a name.
    pub modifiers: &'static [&'static str],
    /// Keywords and decorators that a reader would say aloud: the words for them.
    pub words: &'static [(&'static str, &'static str)],
    /// Keywords and decorators that change what a function is called.
    pub nouns: &'static [(&'static str, &'static str)],
    pub head: Head,
    /// The word before the name of a function; none where its result is.
    pub function_word: &'static str,
    /// Statements that bring names in.
    pub imports: &'static [&'static str],
    pub calls: &'static [&'static str],
}

/// A node around a declaration: where that is, and whether the code keeps what is around it.
#[derive(Debug)]
pub struct Wrapper {
    pub kind: &'static str,
    /// The field of the declaration; empty for the last child.
    pub field: &'static str,
    pub kept: bool,
}

/// How the head of a function is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Name, type parameters, parameters and, after this, the result.
    Fields(&'static str),
    /// The text from the first word that is no modifier to the body.
    Text,
}

/// How comments tell parameters, results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocStyle {
    /// `@param x`, `\param x`: JSDoc, Javadoc, Doxygen.
    Tags,
    /// Google's, NumPy's and reStructuredText's sections, in a string at the head of the body.
    Docstring,
    /// Markdown headings: `# Errors`.
    Headings,
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
