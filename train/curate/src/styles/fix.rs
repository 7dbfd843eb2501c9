//! Style `fix`: given the code with one seeded bug, a mutation of its syntax tree; the answer is the original.

use super::input::{StyleInput, Task};
use crate::instruction::specification;
use crate::language::descendants;
use crate::parsed_code::{Edit, ParsedCode, ancestors, replace};
use tree_sitter::Node;

/// Makes the task, if a mutation applies.
pub fn task(input: &StyleInput) -> Option<Task> {
    let program = input.program(&input.item.code)?;
    let broken = mutated(&program, input)?;
    Some(Task {
        instruction: format!(
            "The {} has a bug. Fix it.\n\nWhat it should do: {}\n\n{}",
            input.name(),
            specification(input.doc, input.item.language),
            input.fenced(broken.code())
        ),
        output: input.item.code.clone(),
    })
}

/// A mutation: returns the edit of a node, if it applies.
type Mutation = fn(&ParsedCode, Node) -> Option<Edit>;

const MUTATIONS: [Mutation; 8] = [
    wrong_comparison,
    wrong_operator,
    off_by_one,
    negated_condition,
    dropped_return,
    dropped_await,
    flipped_boolean,
    wrong_method,
];

/// The program with one bug. The mutation is chosen before the node, so that frequent kinds of nodes do not dominate.
fn mutated(program: &ParsedCode, input: &StyleInput) -> Option<ParsedCode> {
    let nodes = program.nodes();
    let kinds = MUTATIONS.len();
    let first = input.rng.below(0, kinds);
    (0..kinds).find_map(|i| {
        let mutation = MUTATIONS[(first + i) % kinds];
        let places: Vec<Node> = nodes.iter().copied().filter(|&n| mutation(program, n).is_some()).collect();
        let start = if places.is_empty() { 0 } else { input.rng.below(1, places.len()) };
        let rotated = places[start..].iter().chain(&places[..start]);
        rotated.copied().find_map(|node| program.edited(vec![mutation(program, node)?]))
    })
}

/// Replaces the operator of a binary expression according to `table`.
fn replaced_operator(program: &ParsedCode, node: Node, table: &[(&str, &str)]) -> Option<Edit> {
    let operator = node.child_by_field_name("operator").filter(|_| node.kind() == "binary_expression")?;
    let (_, wrong) = table.iter().find(|(right, _)| *right == program.text(operator))?;
    Some(replace(operator, *wrong))
}

fn wrong_comparison(program: &ParsedCode, node: Node) -> Option<Edit> {
    let table = [
        ("<", "<="),
        ("<=", "<"),
        (">", ">="),
        (">=", ">"),
        ("===", "!=="),
        ("!==", "==="),
        ("==", "!="),
        ("!=", "=="),
    ];
    replaced_operator(program, node, &table)
}

/// Replaces an arithmetic or logical operator; `+` of strings is left, since no other operator would be plausible.
fn wrong_operator(program: &ParsedCode, node: Node) -> Option<Edit> {
    let joins = ["left", "right"].into_iter().filter_map(|side| node.child_by_field_name(side));
    let joins = joins.flat_map(descendants).any(|n| matches!(n.kind(), "string" | "template_string"));
    let table = [("-", "+"), ("*", "/"), ("/", "*"), ("%", "/"), ("&&", "||"), ("||", "&&"), ("+", "-")];
    replaced_operator(program, node, if joins { &table[..6] } else { &table })
}

/// Larger numbers are settings, where one more is not a visible bug.
const MAX_NUMBER: u32 = 10;

/// Changes an integer that counts, compares or indexes.
fn off_by_one(program: &ParsedCode, node: Node) -> Option<Edit> {
    let place = node.parent().filter(|_| node.kind() == "number")?;
    if !matches!(
        place.kind(),
        "binary_expression" | "subscript_expression" | "variable_declarator" | "arguments"
    ) {
        return None;
    }
    let number: u32 = program.text(node).parse().ok().filter(|n| *n <= MAX_NUMBER)?;
    let operator = place.child_by_field_name("operator").map_or("", |operator| program.text(operator));
    let wrong = match (number, operator) {
        // No division by zero, and no addition of zero.
        (_, "/" | "%") => return None,
        (1, "+" | "-") => 2,
        (1, _) => 0,
        (n, _) => n + 1,
    };
    Some(replace(node, wrong.to_string()))
}

fn negated_condition(program: &ParsedCode, node: Node) -> Option<Edit> {
    let condition = node.child_by_field_name("condition")?;
    let condition = match node.kind() {
        "if_statement" => condition.named_child(0).filter(|c| c.kind() != "comment")?,
        "ternary_expression" => condition,
        _ => return None,
    };
    Some(replace(condition, negated(program, condition)))
}

/// The negation of a condition, in idiomatic form.
pub fn negated(program: &ParsedCode, condition: Node) -> String {
    let text = program.text(condition);
    match condition.kind() {
        "unary_expression" if text.starts_with('!') => text[1..].trim_start().to_string(),
        "identifier" | "call_expression" | "member_expression" | "parenthesized_expression" => {
            format!("!{text}")
        }
        _ => format!("!({text})"),
    }
}

/// Drops the `return` of `return f(x);`.
fn dropped_return(program: &ParsedCode, node: Node) -> Option<Edit> {
    let value = node.named_child(0).filter(|_| node.kind() == "return_statement")?;
    let calls = matches!(value.kind(), "call_expression" | "await_expression");
    let plain = program.text(value).starts_with(|c: char| c.is_alphabetic());
    (calls && plain).then(|| Edit { at: node.start_byte()..value.start_byte(), text: String::new() })
}

fn dropped_await(program: &ParsedCode, node: Node) -> Option<Edit> {
    let value = node.named_child(0).filter(|_| node.kind() == "await_expression")?;
    Some(replace(node, program.text(value)))
}

/// Flips a boolean literal that is returned, passed or stored.
fn flipped_boolean(_: &ParsedCode, node: Node) -> Option<Edit> {
    let place = node.parent()?.kind();
    if !matches!(place, "return_statement" | "variable_declarator" | "assignment_expression" | "arguments") {
        return None;
    }
    match node.kind() {
        "true" => Some(replace(node, "false")),
        "false" => Some(replace(node, "true")),
        _ => None,
    }
}

/// Replaces a method by its counterpart.
fn wrong_method(program: &ParsedCode, node: Node) -> Option<Edit> {
    const PAIRS: [(&str, &str); 12] = [
        ("min", "max"),
        ("floor", "ceil"),
        ("some", "every"),
        ("push", "unshift"),
        ("pop", "shift"),
        ("startsWith", "endsWith"),
        ("indexOf", "lastIndexOf"),
        ("toLowerCase", "toUpperCase"),
        ("trimStart", "trimEnd"),
        ("padStart", "padEnd"),
        ("slice", "splice"),
        ("keys", "values"),
    ];
    let called = ancestors(node).nth(2)?.child_by_field_name("function")?;
    if node.kind() != "property_identifier" || called.child_by_field_name("property") != Some(node) {
        return None;
    }
    let name = program.text(node);
    PAIRS.iter().find_map(|&(a, b)| match name {
        _ if name == a => Some(replace(node, b)),
        _ if name == b => Some(replace(node, a)),
        _ => None,
    })
}
