//! The tables, one per language.

use super::table::{DocStyle, LanguageTable, SignatureForm, Wrapper};

const fn kept(kind: &'static str, field: &'static str) -> Wrapper {
    Wrapper { kind, field, kept: true }
}

const fn dropped(kind: &'static str, field: &'static str) -> Wrapper {
    Wrapper { kind, field, kept: false }
}

/// The defaults of a table.
const NONE: LanguageTable = LanguageTable {
    name: "",
    extensions: &[],
    excluded_extensions: &[],
    excluded_folders: &[],
    grammar: |_| tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
    comments: &["comment"],
    doc_marks: &["/**"],
    line_comment: "//",
    doc_style: DocStyle::Tags,
    owner: "class",
    raises: "Throws",
    containers: &[],
    owners: &[],
    wrappers: &[],
    functions: &[],
    methods: &[],
    holders: &[],
    lambdas: &[],
    classes: &[],
    overloads: &[],
    decorators: &[],
    modifiers: &[],
    words: &[],
    nouns: &[],
    head: SignatureForm::Fields(""),
    function_word: "",
    imports: &[],
    calls: &[],
    blocks: &[],
    arguments: &["argument_list"],
    returns: &["return_statement"],
};

pub static TYPESCRIPT: LanguageTable = LanguageTable {
    name: "TypeScript",
    extensions: &[".ts", ".tsx", ".mts"],
    excluded_extensions: &[".d.ts", ".d.mts"],
    excluded_folders: &["node_modules"],
    grammar: |path| match path.ends_with(".tsx") {
        true => tree_sitter_typescript::LANGUAGE_TSX.into(),
        false => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
    },
    containers: &["internal_module", "module"],
    wrappers: &[dropped("export_statement", "declaration"), dropped("expression_statement", "")],
    functions: &["function_declaration", "generator_function_declaration"],
    methods: &["method_definition"],
    holders: &["lexical_declaration", "variable_declaration", "public_field_definition"],
    lambdas: &["arrow_function", "function_expression", "generator_function"],
    classes: &[("class_declaration", "class"), ("abstract_class_declaration", "abstract class")],
    overloads: &["function_signature", "method_signature"],
    decorators: &["decorator"],
    words: &[("static", "static"), ("async", "async"), ("*", "generator")],
    nouns: &[("get", "getter"), ("set", "setter")],
    function_word: "function",
    imports: &["import_statement"],
    calls: &["call_expression", "new_expression"],
    blocks: &["statement_block"],
    arguments: &["arguments"],
    ..NONE
};

pub static JAVASCRIPT: LanguageTable = LanguageTable {
    name: "JavaScript",
    extensions: &[".js", ".mjs", ".cjs", ".jsx"],
    excluded_extensions: &[".min.js", ".bundle.js"],
    excluded_folders: &["node_modules", "bower_components", "dist", "vendor"],
    grammar: |_| tree_sitter_javascript::LANGUAGE.into(),
    containers: &[],
    holders: &["lexical_declaration", "variable_declaration", "field_definition"],
    classes: &[("class_declaration", "class")],
    overloads: &[],
    ..TYPESCRIPT
};

pub static PYTHON: LanguageTable = LanguageTable {
    name: "Python",
    extensions: &[".py"],
    excluded_extensions: &["_pb2.py"],
    excluded_folders: &["site-packages", "venv", "__pycache__", "node_modules", "vendor"],
    grammar: |_| tree_sitter_python::LANGUAGE.into(),
    doc_marks: &[],
    line_comment: "#",
    doc_style: DocStyle::Docstring,
    raises: "Raises",
    wrappers: &[kept("decorated_definition", "definition")],
    functions: &["function_definition"],
    methods: &["function_definition"],
    classes: &[("class_definition", "class")],
    decorators: &["decorator"],
    words: &[("async", "async"), ("@staticmethod", "static"), ("@classmethod", "class")],
    nouns: &[("@property", "property")],
    function_word: "def",
    head: SignatureForm::Fields(" -> "),
    imports: &["import_statement", "import_from_statement", "future_import_statement"],
    calls: &["call"],
    blocks: &["block"],
    ..NONE
};

pub static JAVA: LanguageTable = LanguageTable {
    name: "Java",
    extensions: &[".java"],
    excluded_folders: &["build", "target", "generated", "generated-sources"],
    grammar: |_| tree_sitter_java::LANGUAGE.into(),
    comments: &["line_comment", "block_comment"],
    containers: &["enum_body_declarations"],
    methods: &["method_declaration", "constructor_declaration", "compact_constructor_declaration"],
    classes: &[
        ("class_declaration", "class"),
        ("interface_declaration", "interface"),
        ("enum_declaration", "enum"),
        ("record_declaration", "record"),
    ],
    modifiers: &["modifiers"],
    words: &[("static", "static"), ("abstract", "abstract")],
    head: SignatureForm::Text,
    imports: &["import_declaration"],
    calls: &["method_invocation", "object_creation_expression"],
    blocks: &["block", "constructor_body"],
    ..NONE
};

pub static CPP: LanguageTable = LanguageTable {
    name: "C++",
    extensions: &[".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h"],
    excluded_extensions: &[".pb.h", ".pb.cc"],
    excluded_folders: &["third_party", "thirdparty", "3rdparty", "external", "extern", "vendor", "build"],
    grammar: |_| tree_sitter_cpp::LANGUAGE.into(),
    doc_marks: &["/**", "/*!", "///", "//!"],
    containers: &[
        "namespace_definition",
        "linkage_specification",
        "declaration_list",
        "preproc_if",
        "preproc_ifdef",
        "preproc_else",
        "preproc_elif",
    ],
    wrappers: &[kept("template_declaration", ""), dropped("field_declaration", "type")],
    functions: &["function_definition"],
    methods: &["function_definition"],
    classes: &[("class_specifier", "class"), ("struct_specifier", "struct")],
    modifiers: &["storage_class_specifier"],
    words: &[("static", "static")],
    head: SignatureForm::Text,
    imports: &["preproc_include", "using_declaration"],
    calls: &["call_expression"],
    blocks: &["compound_statement"],
    ..NONE
};

pub static RUST: LanguageTable = LanguageTable {
    name: "Rust",
    extensions: &[".rs"],
    excluded_folders: &["target", "vendor"],
    grammar: |_| tree_sitter_rust::LANGUAGE.into(),
    comments: &["line_comment", "block_comment"],
    doc_marks: &["///", "/**"],
    doc_style: DocStyle::Headings,
    owner: "type",
    raises: "Errors",
    containers: &["mod_item", "foreign_mod_item"],
    owners: &["impl_item"],
    functions: &["function_item"],
    methods: &["function_item"],
    classes: &[("struct_item", "struct"), ("enum_item", "enum"), ("trait_item", "trait")],
    decorators: &["attribute_item"],
    modifiers: &["function_modifiers"],
    words: &[("async", "async"), ("unsafe", "unsafe"), ("const", "const")],
    function_word: "fn",
    head: SignatureForm::Fields(" -> "),
    imports: &["use_declaration"],
    calls: &["call_expression", "macro_invocation"],
    blocks: &["block"],
    arguments: &["arguments"],
    returns: &["return_expression"],
    ..NONE
};
