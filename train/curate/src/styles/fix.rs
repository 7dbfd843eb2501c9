//! Style `fix`: the code with one seeded bug (a mutation of its syntax tree) is given; the answer is the original.

use super::subject::{Subject, Task};
use super::tree::{Edit, Program, around, replace};
use crate::instruction::specification;
use tree_sitter::Node;

pub fn task(subject: &Subject) -> Option<Task> {
    let program = subject.program(&subject.item.code)?;
    let broken = broken(&program, subject)?;
    Some(Task {
        instruction: format!(
            "The {} has a bug. Fix it.\n\nWhat it should do: {}\n\n{}",
            subject.name(),
            specification(subject.doc, subject.item.language),
            subject.fenced(broken.code())
        ),
        output: subject.item.code.clone(),
    })
}

/// A kind of bug: how it would change a node, if it can.
type Mutation = fn(&Program, Node) -> Option<Edit>;

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

/// The program with one bug. The kind is drawn first, then the place: operators are many, dropped returns few.
fn broken(program: &Program, subject: &Subject) -> Option<Program> {
    let nodes = program.nodes();
    let kinds = MUTATIONS.len();
    let first = subject.draw.below(0, kinds);
    (0..kinds).find_map(|i| {
        let mutation = MUTATIONS[(first + i) % kinds];
        let places: Vec<Node> = nodes.iter().copied().filter(|&n| mutation(program, n).is_some()).collect();
        let start = if places.is_empty() { 0 } else { subject.draw.below(1, places.len()) };
        let rotated = places[start..].iter().chain(&places[..start]);
        rotated.copied().find_map(|node| program.edited(vec![mutation(program, node)?]))
    })
}

/// A binary expression's operator, replaced as the table says.
fn operator(program: &Program, node: Node, table: &[(&str, &str)]) -> Option<Edit> {
    let operator = node.child_by_field_name("operator").filter(|_| node.kind() == "binary_expression")?;
    let (_, wrong) = table.iter().find(|(right, _)| *right == program.text(operator))?;
    Some(replace(operator, *wrong))
}

fn wrong_comparison(program: &Program, node: Node) -> Option<Edit> {
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
    operator(program, node, &table)
}

/// `+` with a string beside it joins texts; no other operator stands there by mistake.
fn wrong_operator(program: &Program, node: Node) -> Option<Edit> {
    let joins = ["left", "right"].into_iter().filter_map(|side| node.child_by_field_name(side));
    let joins = joins.flat_map(super::tree::below).any(|n| matches!(n.kind(), "string" | "template_string"));
    let table = [("-", "+"), ("*", "/"), ("/", "*"), ("%", "/"), ("&&", "||"), ("||", "&&"), ("+", "-")];
    operator(program, node, if joins { &table[..6] } else { &table })
}

/// A larger number is a setting, and one more of it no visible bug.
const LARGEST: u32 = 10;

/// A whole number that counts, compares or selects.
fn off_by_one(program: &Program, node: Node) -> Option<Edit> {
    let place = node.parent().filter(|_| node.kind() == "number")?;
    if !matches!(
        place.kind(),
        "binary_expression" | "subscript_expression" | "variable_declarator" | "arguments"
    ) {
        return None;
    }
    let number: u32 = program.text(node).parse().ok().filter(|n| *n <= LARGEST)?;
    let operator = place.child_by_field_name("operator").map_or("", |operator| program.text(operator));
    let wrong = match (number, operator) {
        // Nothing is divided by zero, and nobody adds it.
        (_, "/" | "%") => return None,
        (1, "+" | "-") => 2,
        (1, _) => 0,
        (n, _) => n + 1,
    };
    Some(replace(node, wrong.to_string()))
}

fn negated_condition(program: &Program, node: Node) -> Option<Edit> {
    let condition = node.child_by_field_name("condition")?;
    let condition = match node.kind() {
        "if_statement" => condition.named_child(0).filter(|c| c.kind() != "comment")?,
        "ternary_expression" => condition,
        _ => return None,
    };
    Some(replace(condition, negated(program, condition)))
}

/// The opposite of a condition, as a person would write it.
pub fn negated(program: &Program, condition: Node) -> String {
    let text = program.text(condition);
    match condition.kind() {
        "unary_expression" if text.starts_with('!') => text[1..].trim_start().to_string(),
        "identifier" | "call_expression" | "member_expression" | "parenthesized_expression" => {
            format!("!{text}")
        }
        _ => format!("!({text})"),
    }
}

/// `return f(x);` that only calls.
fn dropped_return(program: &Program, node: Node) -> Option<Edit> {
    let value = node.named_child(0).filter(|_| node.kind() == "return_statement")?;
    let calls = matches!(value.kind(), "call_expression" | "await_expression");
    let plain = program.text(value).starts_with(|c: char| c.is_alphabetic());
    (calls && plain).then(|| Edit { at: node.start_byte()..value.start_byte(), text: String::new() })
}

fn dropped_await(program: &Program, node: Node) -> Option<Edit> {
    let value = node.named_child(0).filter(|_| node.kind() == "await_expression")?;
    Some(replace(node, program.text(value)))
}

/// A truth value that is answered, passed or kept.
fn flipped_boolean(_: &Program, node: Node) -> Option<Edit> {
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

/// A method called in place of its counterpart.
fn wrong_method(program: &Program, node: Node) -> Option<Edit> {
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
    let called = around(node).nth(2)?.child_by_field_name("function")?;
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
