//! The form of a table: what curation has to know of a language.

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
