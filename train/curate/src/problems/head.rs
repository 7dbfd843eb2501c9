//! A function in two parts: the head that a prompt ends with, and the body that completes it.

use crate::language::Language;
use crate::parsed_code::ParsedCode;
use crate::row::ItemKind;
use tree_sitter::Node;

/// A function as MultiPL-E writes it: `function name(…) {`, a line break, the body and `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionParts {
    /// To `{` and its line break, overloads included.
    pub head: String,
    pub body: String,
}

impl FunctionParts {
    /// Splits the code of the function `name`. A constant whose value is a function becomes a declaration.
    ///
    /// # Errors
    /// `syntax`, or `typed-constant` if the types are those of a constant, apart from the parameters.
    pub fn split(code: &str, name: &str, tsx: bool) -> Result<FunctionParts, &'static str> {
        let program = ParsedCode::parse(code, ItemKind::Function, tsx).ok_or("syntax")?;
        let table = Language::TypeScript.table();
        let is_function = |n: &Node| {
            (table.functions.contains(&n.kind()) || table.lambdas.contains(&n.kind()))
                && n.child_by_field_name("body").is_some()
        };
        let function = program.nodes().into_iter().find(is_function).ok_or("syntax")?;
        let body = function.child_by_field_name("body").ok_or("syntax")?;
        let head = match table.functions.contains(&function.kind()) {
            true => code[..body.start_byte()].trim_end().to_string(),
            false if function.parent().is_some_and(|p| p.child_by_field_name("type").is_some()) => {
                return Err("typed-constant");
            }
            false => declared_head(&program, function, name),
        };
        let body = match body.kind() {
            "statement_block" => inside(program.text(body)),
            _ => format!("  return {};", program.text(body)),
        };
        Ok(FunctionParts { head: format!("{head} {{\n"), body: format!("{body}\n}}") })
    }
}

/// The head of a function that is a value, as that of the declaration `name`.
fn declared_head(program: &ParsedCode, function: Node, name: &str) -> String {
    let field = |field: &str| function.child_by_field_name(field).map_or("", |node| program.text(node));
    let mut cursor = function.walk();
    let keywords: Vec<&str> =
        function.children(&mut cursor).filter(|n| !n.is_named()).map(|n| n.kind()).collect();
    let word = |keyword: &str, word: &'static str| if keywords.contains(&keyword) { word } else { "" };
    let parameters = match function.child_by_field_name("parameter") {
        Some(only) => format!("({})", program.text(only)),
        None => field("parameters").to_string(),
    };
    format!(
        "{}function{} {name}{}{parameters}{}",
        word("async", "async "),
        word("*", "*"),
        field("type_parameters"),
        field("return_type")
    )
}

/// The text inside of the braces of a block, without the line breaks at its ends.
fn inside(block: &str) -> String {
    let text = block.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(block);
    match text.trim_start_matches([' ', '\t']).strip_prefix('\n') {
        Some(lines) => lines.trim_end().to_string(),
        None => format!("  {}", text.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_any_form_is_a_declaration_in_two_parts() {
        for (code, head, body) in [
            ("function f(a: A): R {\n  return a;\n}", "function f(a: A): R {\n", "  return a;\n}"),
            ("async function f<T>(a: T) { return a; }", "async function f<T>(a: T) {\n", "  return a;\n}"),
            ("function f() {}", "function f() {\n", "  \n}"),
            ("function f() { // why\n  g();\n}", "function f() {\n", "  // why\n  g();\n}"),
            (
                "function f(a: 1): 1;\nfunction f(a: any) {\n  return a;\n}",
                "function f(a: 1): 1;\nfunction f(a: any) {\n",
                "  return a;\n}",
            ),
            (
                "const f = (a: A, b = (x) => x): R => a + b;",
                "function f(a: A, b = (x) => x): R {\n",
                "  return a + b;\n}",
            ),
            ("const f = async <T,>(a: T) => {\n  g(a);\n};", "async function f<T,>(a: T) {\n", "  g(a);\n}"),
            ("const f = a => ({ a });", "function f(a) {\n", "  return ({ a });\n}"),
            ("const f = function* (a) {\n  yield a;\n}", "function* f(a) {\n", "  yield a;\n}"),
        ] {
            let parts = FunctionParts::split(code, "f", false).unwrap();
            assert_eq!((parts.head.as_str(), parts.body.as_str()), (head, body), "{code}");
        }
        assert_eq!(FunctionParts::split("const f: F = (a) => a;", "f", false), Err("typed-constant"));
        assert_eq!(FunctionParts::split("function f( {", "f", false), Err("syntax"));
    }
}
