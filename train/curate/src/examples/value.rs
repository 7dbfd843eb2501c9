//! The value that a comment next to a call gives.

use crate::language::descendants;
use crate::parsed_code::ParsedCode;
use crate::row::ItemKind;
use std::collections::{HashMap, HashSet};
use tree_sitter::Node;

/// Markers before a value in a comment.
pub const VALUE_MARKERS: [&str; 10] =
    ["=>", "->", "→", "===", "==", "=", "returns", "Returns", "output:", "Output:"];
/// Names with the same meaning everywhere.
const GLOBALS: [&str; 5] = ["undefined", "NaN", "Infinity", "Map", "Set"];
/// Maximum bytes of a value.
const MAX_BYTES: usize = 2048;
/// Maximum lines of a value.
const MAX_LINES: usize = 16;

/// The literal in a comment, after its marker, and the last node that it needs: a list or an object may go on in the
/// comments of the next lines.
pub fn commented_value<'t>(
    program: &'t ParsedCode,
    comment: Node<'t>,
    tsx: bool,
) -> Option<(String, Node<'t>)> {
    let (mut text, mut last) = (unmarked(program.text(comment))?.to_string(), comment);
    let continues = text.starts_with(['[', '{']);
    for _ in 0..MAX_LINES {
        if let Some(value) = literal(text.strip_suffix(';').unwrap_or(&text), tsx) {
            return Some((value, last));
        }
        let row = last.end_position().row;
        let next = last.next_named_sibling().filter(|n| n.kind() == "comment" && continues);
        last = next.filter(|n| n.start_position().row == row + 1)?;
        text = format!("{text} {}", program.text(last).strip_prefix("//")?.trim());
    }
    None
}

/// The text of a comment without its own mark and those of a value.
fn unmarked(comment: &str) -> Option<&str> {
    let block = || comment.strip_prefix("/*")?.strip_suffix("*/");
    let mut text = comment.strip_prefix("//").or_else(block)?.trim();
    while let Some(rest) = VALUE_MARKERS.iter().find_map(|mark| text.strip_prefix(mark)) {
        text = rest.trim_start();
    }
    Some(text)
}

/// `text`, if it is a literal.
pub fn literal(text: &str, tsx: bool) -> Option<String> {
    if text.len() > MAX_BYTES {
        return None;
    }
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

/// The constants that the statements of a block declare, with their values where these are self-contained; without those
/// declared twice, and those of which a member is used, by which they may change.
pub fn constants(program: &ParsedCode) -> HashMap<&str, &str> {
    let (mut values, mut left_out) = (HashMap::new(), HashSet::new());
    for node in program.nodes() {
        if matches!(node.kind(), "member_expression" | "subscript_expression") {
            let object = node.child_by_field_name("object").filter(|object| object.kind() == "identifier");
            left_out.extend(object.map(|object| program.text(object)));
        }
    }
    let mut cursor = program.root().walk();
    let statements = program.root().named_children(&mut cursor).filter(|n| n.kind() == "lexical_declaration");
    for declarator in statements.filter_map(|statement| statement.named_child(0)) {
        let fields = ["name", "value"].map(|field| declarator.child_by_field_name(field));
        if let [Some(name), Some(value)] = fields
            && self_contained(program, value, &HashMap::new()).is_some()
            && values.insert(program.text(name), program.text(value)).is_some()
        {
            left_out.insert(program.text(name));
        }
    }
    values.retain(|name, _| !left_out.contains(name));
    values
}

/// The text of arguments in which only names with the same meaning everywhere and parameters of their own functions are
/// left: constants are replaced by their values. `None` if others are used.
pub fn self_contained(
    program: &ParsedCode,
    arguments: Node,
    constants: &HashMap<&str, &str>,
) -> Option<String> {
    let nodes = descendants(arguments);
    let is_parameter = |n: &&Node| {
        n.parent().is_some_and(|p| {
            p.kind() == "required_parameter" || p.child_by_field_name("parameter") == Some(**n)
        })
    };
    let own: Vec<&str> = nodes.iter().filter(is_parameter).map(|n| program.text(*n)).collect();
    let whole = program.text(arguments);
    let (mut text, mut done) = (String::new(), 0);
    for node in nodes {
        let name = program.text(node);
        match node.kind() {
            "identifier" if GLOBALS.contains(&name) || own.contains(&name) => {}
            "identifier" => {
                let at = node.start_byte() - arguments.start_byte();
                text.push_str(&whole[done..at]);
                let value = constants.get(name)?;
                match node.parent() == Some(arguments) {
                    true => text.push_str(value),
                    false => text.push_str(&format!("({value})")),
                }
                done = at + name.len();
            }
            // `{ name }` and `this` refer to the outside.
            "shorthand_property_identifier" | "this" | "await_expression" | "comment" => return None,
            _ => {}
        }
    }
    Some(text + &whole[done..])
}
