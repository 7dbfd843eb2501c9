//! Renaming of local variables to meaningless names.

use crate::parsed_code::{Edit, ParsedCode, ancestors, replace};
use std::collections::HashMap;
use tree_sitter::Node;

/// Shorter names are meaningless already.
const MIN_NAME_LENGTH: usize = 3;
/// Minimum number of renamed variables.
const MIN_RENAMED: usize = 2;

/// Renames local variables to `v1`, `v2`, …: those declared by a plain `const` or `let` in a block, whose name is
/// declared nowhere else in the item and used only inside that block.
pub fn obscure(program: &ParsedCode) -> Option<ParsedCode> {
    let nodes = program.nodes();
    let mut by_name: HashMap<&str, Vec<Node>> = HashMap::new();
    for &node in nodes.iter().filter(|n| names_a_value(**n)) {
        by_name.entry(program.text(node)).or_default().push(node);
    }
    let locals: Vec<&Vec<Node>> = nodes
        .iter()
        .filter(|n| is_local_declaration(**n))
        .filter_map(|n| by_name.get(program.text(*n)))
        .filter(|uses| is_renamable(uses))
        .filter(|uses| program.text(uses[0]).len() >= MIN_NAME_LENGTH)
        .collect();
    // If any name looks like a new one, the new names may collide.
    let taken = by_name.keys().any(|name| name.starts_with('v') && name[1..].parse::<u32>().is_ok());
    if locals.len() < MIN_RENAMED || taken || program.code().contains("eval(") {
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
    // A function takes its name from the variable.
    let value = declarator.and_then(|d| d.child_by_field_name("value"));
    let named = value.is_some_and(|v| {
        v.kind().contains("function") || v.kind() == "class" || v.kind().starts_with("paren")
    });
    node.kind() == "identifier" && !named && block.is_some_and(|b| b.kind() == "statement_block")
}

/// Returns whether all uses of a name refer to one local variable: one declares it, the others use it in its block.
fn is_renamable(uses: &[Node]) -> bool {
    let declarations: Vec<&Node> = uses.iter().filter(|n| is_declaration(**n)).collect();
    let [declaration] = declarations[..] else {
        return false;
    };
    let block = ancestors(*declaration).find(|n| n.kind() == "statement_block");
    is_local_declaration(*declaration)
        && uses.iter().all(|n| {
            let in_block = ancestors(*n).any(|a| Some(a) == block);
            let in_markup =
                n.parent().is_some_and(|p| p.kind().starts_with("jsx_") && p.kind() != "jsx_expression");
            in_block && !in_markup && n.kind() != "type_identifier"
        })
}

/// Returns whether a node declares a name.
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

/// Renames one use; `{ name }` becomes `{ name: v1 }`.
fn edit(program: &ParsedCode, node: Node, to: &str) -> Edit {
    match node.kind() {
        "shorthand_property_identifier" => replace(node, format!("{}: {to}", program.text(node))),
        _ => replace(node, to),
    }
}
