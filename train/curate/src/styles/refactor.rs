//! Style `refactor`: given a less readable equivalent of the code; the answer is the original.
//!
//! Each step preserves the meaning for any types: [`nest`] moves the code after an `if` that returns into its `else`;
//! [`spell_out`] replaces a returned comparison by two returns; [`swap`] negates a condition and exchanges the
//! branches; [`obscure`](super::rename::obscure) renames local variables.

use super::fix::negated;
use super::input::{StyleInput, Task};
use super::rename::obscure;
use crate::instruction::specification;
use crate::language::{descendants, named_children};
use crate::parsed_code::{Edit, ParsedCode, replace};
use tree_sitter::Node;

/// A refactoring step: returns the changed code, if the step applies.
type RefactorStep = fn(&ParsedCode) -> Option<ParsedCode>;

/// The steps, each with the request that reverts it.
const STEPS: [(RefactorStep, &str); 4] = [
    (nest, "return early instead of nesting"),
    (spell_out, "return a condition itself"),
    (swap, "put conditions positively"),
    (obscure, "give the variables names that say what they hold"),
];

/// Makes the task, if a step applies.
pub fn task(input: &StyleInput) -> Option<Task> {
    let mut worse = input.program(&input.item.code)?;
    let mut requests = Vec::new();
    for (step, request) in STEPS {
        if let Some(program) = step(&worse) {
            worse = program;
            requests.push(request);
        }
    }
    let (last, first) = requests.split_last()?;
    let requests = match first {
        [] => last.to_string(),
        first => format!("{} and {last}", first.join(", ")),
    };
    Some(Task {
        instruction: format!(
            "Refactor the {} without changing what it does: {requests}.\n\nWhat it does: {}\n\n{}",
            input.name(),
            specification(input.doc, input.item.language),
            input.fenced(worse.code())
        ),
        output: input.item.code.clone(),
    })
}

/// `if (a) { …; return b; } rest` to `if (a) { …; return b; } else { rest }`, the last such `if` of the item.
fn nest(program: &ParsedCode) -> Option<ParsedCode> {
    let nodes = program.nodes();
    nodes.iter().rev().filter(|n| is_early_exit(**n)).find_map(|node| program.edited(nested(program, *node)?))
}

/// Returns whether a node is an `if` without `else` whose block ends by leaving the function.
fn is_early_exit(node: Node) -> bool {
    let block = node.child_by_field_name("consequence").filter(|b| b.kind() == "statement_block");
    let last = block.and_then(|b| named_children(b).next_back());
    node.kind() == "if_statement"
        && node.child_by_field_name("alternative").is_none()
        && last.is_some_and(|l| matches!(l.kind(), "return_statement" | "throw_statement"))
}

fn nested(program: &ParsedCode, node: Node) -> Option<Vec<Edit>> {
    let block = node.parent().filter(|p| p.kind() == "statement_block")?;
    let rest: Vec<Node> = siblings_after(node).collect();
    let (first, last) = (rest.first()?, rest.last()?);
    if is_immovable(program, block, &rest) {
        return None;
    }
    let indent = program.indent(node);
    let text = &program.up_to(*last)[program.up_to(*first).len() - program.text(*first).len()..];
    let moved: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, line)| match (i, line.trim().is_empty()) {
            (_, true) => String::new(),
            (0, _) => format!("{indent}  {line}"),
            _ => format!("  {line}"),
        })
        .collect();
    let text = format!(" else {{\n{}\n{indent}}}", moved.join("\n"));
    Some(vec![Edit { at: node.end_byte()..last.end_byte(), text }])
}

/// Returns whether the statements at the end of a block cannot be moved into a nested block: they contain a multi-line
/// string, whose indentation must not change, or declare a name that is used before them.
fn is_immovable(program: &ParsedCode, block: Node, rest: &[Node]) -> bool {
    let inside = || rest.iter().copied().flat_map(descendants);
    let multi_line = |n: Node| {
        matches!(n.kind(), "template_string" | "string" | "jsx_text")
            && n.start_position().row < n.end_position().row
    };
    let names = |n: &Node| n.kind().contains("identifier");
    let before: Vec<&str> = descendants(block)
        .into_iter()
        .filter(|n| names(n) && n.end_byte() <= rest[0].start_byte())
        .map(|n| program.text(n))
        .collect();
    let declared = rest.iter().copied().filter(|n| n.kind() == "lexical_declaration").flat_map(descendants);
    let declared = declared.filter(|n| n.kind() == "variable_declarator");
    let declared = declared.filter_map(|n| n.child_by_field_name("name")).flat_map(descendants).filter(names);
    let hoisted =
        rest.iter().any(|n| n.kind() != "lexical_declaration" && n.kind().ends_with("_declaration"));
    hoisted || inside().any(multi_line) || declared.into_iter().any(|n| before.contains(&program.text(n)))
}

fn siblings_after(node: Node) -> impl Iterator<Item = Node> {
    std::iter::successors(node.next_named_sibling(), |n| n.next_named_sibling())
}

/// `return a < b;` to `if (a < b) { return true; } else { return false; }`: a comparison is a boolean.
fn spell_out(program: &ParsedCode) -> Option<ParsedCode> {
    const COMPARES: [&str; 10] = ["<", "<=", ">", ">=", "===", "!==", "==", "!=", "instanceof", "in"];
    let edits = program.nodes().into_iter().filter(|n| n.kind() == "return_statement").filter_map(|node| {
        let value = node.named_child(0)?;
        let operator = value.child_by_field_name("operator")?;
        let compares = value.kind() == "binary_expression" && COMPARES.contains(&program.text(operator));
        let alone = node.parent()?.kind() == "statement_block";
        let (indent, value) = (program.indent(node), program.text(value));
        (compares && alone).then(|| {
            let text = format!(
                "if ({value}) {{\n{indent}  return true;\n{indent}}} else {{\n{indent}  return false;\n{indent}}}"
            );
            replace(node, text)
        })
    });
    program.edited(edits.collect())
}

/// `if (a) { b } else { c }` to `if (!a) { c } else { b }`, the first such `if` of the item.
fn swap(program: &ParsedCode) -> Option<ParsedCode> {
    program.nodes().into_iter().filter(|n| n.kind() == "if_statement").find_map(|node| {
        let then = node.child_by_field_name("consequence").filter(|b| b.kind() == "statement_block")?;
        let other = node.child_by_field_name("alternative")?.named_child(0)?;
        let condition = node.child_by_field_name("condition")?.named_child(0)?;
        // A negated condition would become clearer.
        let unclear = condition.kind() == "comment" || program.text(condition).starts_with('!');
        if other.kind() != "statement_block" || unclear {
            return None;
        }
        program.edited(vec![
            replace(condition, negated(program, condition)),
            replace(then, program.text(other)),
            replace(other, program.text(then)),
        ])
    })
}
