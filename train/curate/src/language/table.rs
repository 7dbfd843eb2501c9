//! The description of a language that curation needs, in one table.

/// The description of a language. Fields without a comment are node kinds of its tree-sitter grammar.
#[derive(Debug)]
pub struct LanguageTable {
    /// The display name.
    pub name: &'static str,
    /// File extensions; the first, without its dot, is MultiPL-E's code of the language.
    pub extensions: &'static [&'static str],
    /// Extensions of declaration files, which contain no code: `.d.ts`.
    pub excluded_extensions: &'static [&'static str],
    /// Folders of installed, vendored or built files.
    pub excluded_folders: &'static [&'static str],
    /// The grammar for a file with the given path.
    pub grammar: fn(&str) -> tree_sitter::Language,
    pub comments: &'static [&'static str],
    /// Prefixes of documentation comments.
    pub doc_marks: &'static [&'static str],
    /// Prefix of a comment to the end of the line.
    pub line_comment: &'static str,
    pub doc_style: DocStyle,
    /// The word for a type with methods, as `class`.
    pub owner: &'static str,
    /// The word for raised errors, as `Throws`.
    pub raises: &'static str,
    /// Nodes that contain declarations: namespaces, modules, preprocessor branches.
    pub containers: &'static [&'static str],
    /// Nodes that contain the methods of the type in their field `type`, as `impl`.
    pub owners: &'static [&'static str],
    pub wrappers: &'static [Wrapper],
    /// Functions; the name is in the field `name` or `declarator`.
    pub functions: &'static [&'static str],
    /// Functions in classes.
    pub methods: &'static [&'static str],
    /// Constants and fields whose value may be a function.
    pub holders: &'static [&'static str],
    /// Function expressions.
    pub lambdas: &'static [&'static str],
    /// Classes and similar types, with the word for each.
    pub classes: &'static [(&'static str, &'static str)],
    /// Overload signatures without a body, which precede the function of the same name.
    pub overloads: &'static [&'static str],
    pub decorators: &'static [&'static str],
    /// Nodes of keywords before a name.
    pub modifiers: &'static [&'static str],
    /// Keywords and decorators that are part of the description, with their words.
    pub words: &'static [(&'static str, &'static str)],
    /// Keywords and decorators that change the word for a function, as `getter`.
    pub nouns: &'static [(&'static str, &'static str)],
    pub head: SignatureForm,
    /// The keyword before the name of a function; empty if the result type is there.
    pub function_word: &'static str,
    /// Import statements.
    pub imports: &'static [&'static str],
    pub calls: &'static [&'static str],
    /// Blocks of statements.
    pub blocks: &'static [&'static str],
    /// The arguments of a call, in parentheses.
    pub arguments: &'static [&'static str],
    /// Statements that return a value, which is their first child.
    pub returns: &'static [&'static str],
}

/// A node around a declaration, as `export` or a decorator.
#[derive(Debug)]
pub struct Wrapper {
    pub kind: &'static str,
    /// The field of the declaration; empty for the last child.
    pub field: &'static str,
    /// True if the code of the item includes the wrapper.
    pub kept: bool,
}

/// The form in which the grammar stores the signature of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureForm {
    /// From fields: name, type parameters, parameters and, after this separator, the result type.
    Fields(&'static str),
    /// From the text between the modifiers and the body.
    Text,
}

/// The convention of documentation comments for parameters, results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocStyle {
    /// `@param x`, `\param x`: JSDoc, Javadoc, Doxygen.
    Tags,
    /// Python docstrings: Google, NumPy and reStructuredText sections.
    Docstring,
    /// Markdown headings, as rustdoc's `# Errors`.
    Headings,
}
