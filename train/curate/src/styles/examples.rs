//! Style `test`: given the code; the answer asserts the examples of its comment, each a call and its value.
//!
//! The values are those of the comment: nothing is run. Only calls with self-contained arguments are used.

use super::input::{StyleInput, Task};
use super::tree::ParsedCode;
use crate::comment::without_markers;
use crate::language::descendants;
use crate::row::ItemKind;
use tree_sitter::Node;

/// Markers before a value in a comment.
const VALUE_MARKERS: [&str; 10] =
    ["=>", "->", "→", "===", "==", "=", "returns", "Returns", "output:", "Output:"];
/// Names with the same meaning everywhere.
const GLOBALS: [&str; 5] = ["undefined", "NaN", "Infinity", "Map", "Set"];

/// Makes the task, if the comment has an example of a function or static method.
pub fn task(input: &StyleInput) -> Option<Task> {
    let item = input.item;
    if item.kind == ItemKind::Class || (item.kind == ItemKind::Method && !item.noun.contains("static")) {
        return None;
    }
    let mut assertions: Vec<String> = Vec::new();
    for block in blocks(&item.comment) {
        for (call, value) in calls(&block, &item.name, input.tsx) {
            let assertion = format!("assert.deepEqual({call}, {value});");
            if !assertions.contains(&assertion) {
                assertions.push(assertion);
            }
        }
    }
    if assertions.is_empty() {
        return None;
    }
    Some(Task {
        instruction: format!(
            "Write a test of the {} with `node:assert`.\n\n{}\n\n{}",
            input.name(),
            input.doc.description,
            input.fenced(&item.code)
        ),
        output: format!("import assert from 'node:assert';\n\n{}", assertions.join("\n")),
    })
}

/// The code blocks of a comment: fenced code, and the text of `@example` tags.
fn blocks(comment: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    let (mut fenced, mut example) = (false, false);
    for line in without_markers(comment) {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
            blocks.push(String::new());
        } else if let Some(tag) = trimmed.strip_prefix('@').filter(|_| !fenced) {
            example = tag.starts_with("example");
            let rest = tag.strip_prefix("example").unwrap_or_default();
            blocks.push(format!("{rest}\n"));
        } else if fenced || example {
            let block = blocks.last_mut().expect("starts with one");
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks.retain(|block| !block.trim().is_empty());
    blocks
}

/// The calls of `name` with the value that a comment next to them gives.
fn calls(block: &str, name: &str, tsx: bool) -> Vec<(String, String)> {
    let Some(program) = ParsedCode::parse_loosely(block, tsx) else {
        return Vec::new();
    };
    let comments = program.nodes().into_iter().filter(|n| n.kind() == "comment");
    let pairs = comments.filter_map(|comment| {
        let statement = commented_statement(&program, comment).filter(|s| !s.has_error())?;
        let call = called(&program, statement)?;
        let function = call.named_child(0).filter(|_| call.kind() == "await_expression").unwrap_or(call);
        let named = function.child_by_field_name("function").is_some_and(|f| program.text(f) == name);
        let fixed = function.child_by_field_name("arguments").is_some_and(|a| is_self_contained(&program, a));
        let value = parse_value(program.text(comment), tsx)?;
        (named && fixed).then(|| (program.text(call).to_string(), value))
    });
    pairs.collect()
}

/// The statement whose value a comment gives: the one on the same line or on the line before; in a block that begins
/// with a comment, the one on the next line, unless the comment has an arrow.
fn commented_statement<'t>(program: &ParsedCode, comment: Node<'t>) -> Option<Node<'t>> {
    let row = comment.start_position().row;
    let before = comment.prev_named_sibling().filter(|s| row - s.end_position().row <= 1);
    let ends_line = before.is_some_and(|s| s.end_position().row == row);
    let text = program.text(comment).trim_start_matches('/').trim_start();
    let arrow = ["=>", "->", "→"].iter().any(|arrow| text.starts_with(arrow));
    let leads = program.root().named_child(0).is_some_and(|first| first.kind() == "comment");
    match leads && !ends_line && !arrow {
        true => comment.next_named_sibling().filter(|s| s.start_position().row == row + 1),
        false => before,
    }
}

/// The call in `f(x);`, `await f(x);`, `console.log(f(x));` and `const y = f(x);`.
fn called<'t>(program: &ParsedCode, statement: Node<'t>) -> Option<Node<'t>> {
    let expression = match statement.kind() {
        "expression_statement" => statement.named_child(0)?,
        "lexical_declaration" => statement.named_child(0)?.child_by_field_name("value")?,
        // Without a semicolon the comment is inside the statement, after these.
        "variable_declarator" => statement.child_by_field_name("value")?,
        _ => statement,
    };
    match expression.child_by_field_name("function") {
        Some(log) if program.text(log) == "console.log" => {
            let arguments = expression.child_by_field_name("arguments")?;
            arguments.named_child(0).filter(|_| arguments.named_child_count() == 1)
        }
        _ => Some(expression),
    }
}

/// The literal in a comment, after its marker.
fn parse_value(comment: &str, tsx: bool) -> Option<String> {
    let mut text = comment.strip_prefix("//")?.trim();
    while let Some(rest) = VALUE_MARKERS.iter().find_map(|mark| text.strip_prefix(mark)) {
        text = rest.trim_start();
    }
    let text = text.strip_suffix(';').unwrap_or(text);
    let program = ParsedCode::parse(&format!("({text})"), ItemKind::Function, tsx)?;
    let nodes = program.nodes();
    // The first three nodes are the program, the statement and the parentheses.
    let complete = nodes.get(3).is_some_and(|n| program.text(*n) == text);
    (complete && nodes[3..].iter().all(|n| is_literal(&program, *n))).then(|| text.to_string())
}

fn is_literal(program: &ParsedCode, node: Node) -> bool {
    match node.kind() {
        "number" | "string" | "string_fragment" | "escape_sequence" | "true" | "false" | "null"
        | "undefined" => true,
        "array" | "object" | "pair" | "property_identifier" | "new_expression" | "arguments" => true,
        "unary_expression" => program.text(node).starts_with('-'),
        "identifier" => GLOBALS.contains(&program.text(node)),
        _ => false,
    }
}

/// Returns whether arguments are self-contained: literals, and functions of their own parameters.
fn is_self_contained(program: &ParsedCode, arguments: Node) -> bool {
    let nodes = descendants(arguments);
    let is_parameter = |n: &&Node| {
        n.parent().is_some_and(|p| {
            p.kind() == "required_parameter" || p.child_by_field_name("parameter") == Some(**n)
        })
    };
    let own: Vec<&str> = nodes.iter().filter(is_parameter).map(|n| program.text(*n)).collect();
    nodes.iter().all(|n| match n.kind() {
        "identifier" => GLOBALS.contains(&program.text(*n)) || own.contains(&program.text(*n)),
        // `{ name }` and `this` refer to the outside.
        "shorthand_property_identifier" | "this" | "await_expression" | "comment" => false,
        _ => true,
    })
}
