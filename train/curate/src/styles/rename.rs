//! Taking the names of local constants and variables away.

use super::tree::{Edit, Program, around, replace};
use std::collections::HashMap;
use tree_sitter::Node;

/// Shorter names say nothing already.
const SHORTEST: usize = 3;
/// Fewer names are hardly worth a change.
const FEWEST: usize = 2;

/// Renames every local that can be told by its form to `v1`, `v2`, …: declared by a plain `const` or `let` in a block,
/// its name declared nowhere else in the item and used inside that block alone.
pub fn obscure(program: &Program) -> Option<Program> {
    let nodes = program.nodes();
    let mut by_name: HashMap<&str, Vec<Node>> = HashMap::new();
    for &node in nodes.iter().filter(|n| names_a_value(**n)) {
        by_name.entry(program.text(node)).or_default().push(node);
    }
    let locals: Vec<&Vec<Node>> = nodes
        .iter()
        .filter(|n| is_local_declaration(**n))
        .filter_map(|n| by_name.get(program.text(*n)))
        .filter(|uses| can_be_told(uses))
        .filter(|uses| program.text(uses[0]).len() >= SHORTEST)
        .collect();
    // A name that begins like a new one anywhere, and none is surely free.
    let taken = by_name.keys().any(|name| name.starts_with('v') && name[1..].parse::<u32>().is_ok());
    if locals.len() < FEWEST || taken || program.code().contains("eval(") {
        return None;
    }
    let renamed = locals.iter().enumerate().flat_map(|(i, uses)| {
        let to = format!("v{}", i + 1);
        uses.iter().map(move |node| edit(program, *node, &to))
    });
    program.edited(renamed.collect())
}

fn names_a_value(node: Node) -> bool {
    let kind = node.kind();
    kind.starts_with("shorthand_property_identifier")
        || matches!(kind, "identifier" | "type_identifier" | "this_type")
}

/// The name of `const name = …` or `let name = …` inside a block.
fn is_local_declaration(node: Node) -> bool {
    let declarator = node.parent().filter(|p| p.child_by_field_name("name") == Some(node));
    let statement = declarator.filter(|d| d.kind() == "variable_declarator").and_then(|d| d.parent());
    let block = statement.filter(|s| s.kind() == "lexical_declaration").and_then(|s| s.parent());
    // A function that is kept under a name has that name.
    let value = declarator.and_then(|d| d.child_by_field_name("value"));
    let named = value.is_some_and(|v| {
        v.kind().contains("function") || v.kind() == "class" || v.kind().starts_with("paren")
    });
    node.kind() == "identifier" && !named && block.is_some_and(|b| b.kind() == "statement_block")
}

/// Whether all these nodes of one name are uses of one local: one declares it, the rest read or write it in its block.
fn can_be_told(uses: &[Node]) -> bool {
    let declarations: Vec<&Node> = uses.iter().filter(|n| is_declaration(**n)).collect();
    let [declaration] = declarations[..] else {
        return false;
    };
    let block = around(*declaration).find(|n| n.kind() == "statement_block");
    is_local_declaration(*declaration)
        && uses.iter().all(|n| {
            let in_block = around(*n).any(|a| Some(a) == block);
            let in_markup =
                n.parent().is_some_and(|p| p.kind().starts_with("jsx_") && p.kind() != "jsx_expression");
            in_block && !in_markup && n.kind() != "type_identifier"
        })
}

/// Whether a node may bring a name into being: known reads aside, all may.
fn is_declaration(node: Node) -> bool {
    let Some(parent) = node.parent() else { return true };
    let field = |name: &str| parent.child_by_field_name(name) == Some(node);
    match parent.kind() {
        "variable_declarator"
        | "function_declaration"
        | "function_expression"
        | "class_declaration"
        | "class"
        | "enum_declaration"
        | "generator_function_declaration"
        | "generator_function" => field("name"),
        // `x => …` and `async x => …`.
        "arrow_function" => field("parameter"),
        "for_in_statement" => field("left"),
        "catch_clause" => field("parameter"),
        "required_parameter" | "optional_parameter" => field("pattern"),
        "assignment_pattern" | "object_assignment_pattern" => field("left"),
        "pair_pattern" => field("value"),
        "array_pattern" | "object_pattern" | "rest_pattern" | "namespace_import" | "import_specifier"
        | "import_clause" | "formal_parameters" | "internal_module" | "module" => true,
        _ => false,
    }
}

/// `{ name }` reads as `{ name: v1 }`.
fn edit(program: &Program, node: Node, to: &str) -> Edit {
    match node.kind() {
        "shorthand_property_identifier" => replace(node, format!("{}: {to}", program.text(node))),
        _ => replace(node, to),
    }
}
