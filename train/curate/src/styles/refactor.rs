//! Style `refactor`: the code made worse without a change of meaning is given; the answer is the original.
//!
//! Each step is safe by its form alone, whatever the types: [`nest`] puts what follows an `if` that leaves into its
//! `else`; [`spell_out`] answers a comparison by two returns; [`swap`] negates a condition and exchanges the branches;
//! [`obscure`](super::rename::obscure) takes local names away. A tidier program with the same meaning is the original.

use super::fix::negated;
use super::rename::obscure;
use super::subject::{Subject, Task};
use super::tree::{Edit, Program, below, replace};
use crate::instruction::specification;
use tree_sitter::Node;

/// A change of the whole program, where it finds a place for it.
type Step = fn(&Program) -> Option<Program>;

/// A step, and what is to be wished of who takes it back.
const STEPS: [(Step, &str); 4] = [
    (nest, "return early instead of nesting"),
    (spell_out, "return a condition itself"),
    (swap, "put conditions positively"),
    (obscure, "give the variables names that say what they hold"),
];

pub fn task(subject: &Subject) -> Option<Task> {
    let mut worse = subject.program(&subject.item.code)?;
    let mut wishes = Vec::new();
    for (step, wish) in STEPS {
        if let Some(program) = step(&worse) {
            worse = program;
            wishes.push(wish);
        }
    }
    let (last, first) = wishes.split_last()?;
    let wishes = match first {
        [] => last.to_string(),
        first => format!("{} and {last}", first.join(", ")),
    };
    Some(Task {
        instruction: format!(
            "Refactor the {} without changing what it does: {wishes}.\n\nWhat it does: {}\n\n{}",
            subject.name(),
            specification(subject.doc, subject.item.language),
            subject.fenced(worse.code())
        ),
        output: subject.item.code.clone(),
    })
}

/// `if (a) { …; return b; } rest` to `if (a) { …; return b; } else { rest }`, the last such `if` of the item.
fn nest(program: &Program) -> Option<Program> {
    let nodes = program.nodes();
    nodes.iter().rev().filter(|n| leaves(**n)).find_map(|node| program.edited(nested(program, *node)?))
}

/// An `if` without an `else` whose block ends by leaving the function.
fn leaves(node: Node) -> bool {
    let block = node.child_by_field_name("consequence").filter(|b| b.kind() == "statement_block");
    let last = block.and_then(|b| b.named_child(b.named_child_count().checked_sub(1)?));
    node.kind() == "if_statement"
        && node.child_by_field_name("alternative").is_none()
        && last.is_some_and(|l| matches!(l.kind(), "return_statement" | "throw_statement"))
}

fn nested(program: &Program, node: Node) -> Option<Vec<Edit>> {
    let block = node.parent().filter(|p| p.kind() == "statement_block")?;
    let rest: Vec<Node> = siblings_after(node).collect();
    let (first, last) = (rest.first()?, rest.last()?);
    if is_bound(program, block, &rest) {
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

/// Whether statements at the end of a block cannot move into a block of their own as they are: they hold text over
/// several lines, which must keep its indentation, or declare what is named before them.
fn is_bound(program: &Program, block: Node, rest: &[Node]) -> bool {
    let inside = || rest.iter().copied().flat_map(below);
    let broad = |n: Node| {
        matches!(n.kind(), "template_string" | "string" | "jsx_text")
            && n.start_position().row < n.end_position().row
    };
    let names = |n: &Node| n.kind().contains("identifier");
    let before: Vec<&str> = below(block)
        .into_iter()
        .filter(|n| names(n) && n.end_byte() <= rest[0].start_byte())
        .map(|n| program.text(n))
        .collect();
    let declared = rest.iter().copied().filter(|n| n.kind() == "lexical_declaration").flat_map(below);
    let declared = declared.filter(|n| n.kind() == "variable_declarator");
    let declared = declared.filter_map(|n| n.child_by_field_name("name")).flat_map(below).filter(names);
    let hoisted =
        rest.iter().any(|n| n.kind() != "lexical_declaration" && n.kind().ends_with("_declaration"));
    hoisted || inside().any(broad) || declared.into_iter().any(|n| before.contains(&program.text(n)))
}

fn siblings_after(node: Node) -> impl Iterator<Item = Node> {
    std::iter::successors(node.next_named_sibling(), |n| n.next_named_sibling())
}

/// `return a < b;` to `if (a < b) { return true; } else { return false; }`: a comparison is a boolean.
fn spell_out(program: &Program) -> Option<Program> {
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
fn swap(program: &Program) -> Option<Program> {
    program.nodes().into_iter().filter(|n| n.kind() == "if_statement").find_map(|node| {
        let then = node.child_by_field_name("consequence").filter(|b| b.kind() == "statement_block")?;
        let other = node.child_by_field_name("alternative")?.named_child(0)?;
        let condition = node.child_by_field_name("condition")?.named_child(0)?;
        // A condition that is negated already would become clearer.
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
