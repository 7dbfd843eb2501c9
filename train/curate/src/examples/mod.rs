//! The examples of a comment: calls of a function, each with its value.
//!
//! The forms: `f(x); // => y` (or `// y`, `// returns y`, `/* y */`, on the line or beside it), `f(x) => y`, `f(x) === y`,
//! `>> f(x)` above `y`, `assert.deepEqual(f(x), y)`, `expect(f(x)).toBe(y)`; each in fenced code or after `@example`, those
//! with an arrow or a prompt also in prose. The values are those of the comment: nothing is run. Only calls with
//! self-contained arguments are read; constants of the same code are put in for their names.

mod block;
mod value;

use crate::comment::without_markers;
use crate::parsed_code::ParsedCode;
use block::Block;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use tree_sitter::Node;
use value::{commented_value, constants, literal, self_contained};

/// Maximum bytes of a block; more is a listing rather than an example.
const MAX_BLOCK: usize = 16 << 10;

/// A call and its value, as the comment writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The call, perhaps with `await`.
    pub call: String,
    /// A literal.
    pub value: String,
    /// Its lines in the comment.
    lines: BTreeSet<usize>,
}

/// A comment without its markers, and its examples of one function.
pub struct CommentExamples<'a> {
    lines: Vec<&'a str>,
    blocks: Vec<Block<'a>>,
    /// The distinct examples in the order of the blocks.
    pub examples: Vec<Example>,
    /// True if code of the comment calls the function, with a value that can be read or not.
    pub calls: bool,
}

impl Example {
    /// The statement that asserts it with `node:assert`.
    pub fn assertion(&self) -> String {
        format!("assert.deepEqual({}, {});", self.call, self.value)
    }
}

impl<'a> CommentExamples<'a> {
    /// Reads the examples of the function `name`; `tsx` selects the grammar.
    pub fn read(comment: &'a str, name: &str, tsx: bool) -> CommentExamples<'a> {
        let lines = without_markers(comment);
        let blocks = Block::split(&lines);
        let mut found = CommentExamples { lines, blocks, examples: Vec::new(), calls: false };
        let opening = format!("{name}(");
        for block in &found.blocks {
            let code = block.code(name);
            if code.len() > MAX_BLOCK || !code.contains(&opening) {
                continue;
            }
            found.calls = true;
            for (call, value, rows) in examples(&code, name, tsx) {
                let lines = rows.filter_map(|row| Some(block.lines.get(row)?.0)).collect();
                if !found.examples.iter().any(|e| (&e.call, &e.value) == (&call, &value)) {
                    found.examples.push(Example { call, value, lines });
                }
            }
        }
        found
    }

    /// The lines of the comment without these examples, and without blocks of which nothing is left.
    pub fn lines_without(&self, examples: &[Example]) -> Vec<&'a str> {
        let mut removed: BTreeSet<usize> = examples.iter().flat_map(|e| e.lines.iter().copied()).collect();
        for block in &self.blocks {
            let code = || block.lines.iter().filter(|(_, line)| !line.trim().is_empty());
            let emptied = code().all(|(at, _)| removed.contains(at)) && code().next().is_some();
            if emptied {
                removed.extend(block.frame.iter().chain(block.lines.iter().map(|(at, _)| at)));
            }
        }
        let kept = self.lines.iter().enumerate().filter(|(at, _)| !removed.contains(at));
        kept.map(|(_, line)| *line).collect()
    }
}

/// The calls of `name` in a block with their values, and the rows of both.
fn examples(block: &str, name: &str, tsx: bool) -> Vec<(String, String, RangeInclusive<usize>)> {
    let Some(program) = ParsedCode::parse_loosely(block, tsx) else {
        return Vec::new();
    };
    let constants = constants(&program);
    let example = |node: Node| {
        let (call, value, first, last) = match node.kind() {
            "comment" => {
                let statement = commented_statement(&program, node).filter(|s| !s.has_error())?;
                let (value, last) = commented_value(&program, node, tsx)?;
                (called(&program, statement)?, value, statement, last)
            }
            "call_expression" if !node.has_error() => {
                let (call, value) = asserted(&program, node)?;
                (call, literal(program.text(value), tsx)?, node, node)
            }
            _ => return None,
        };
        let rows = first.start_position().row.min(node.start_position().row)
            ..=first.end_position().row.max(last.end_position().row);
        Some((written_call(&program, call, name, &constants)?, value, rows))
    };
    program.nodes().into_iter().filter_map(example).collect()
}

/// The text of an expression that is a call of `name`, perhaps awaited, with self-contained arguments.
fn written_call(
    program: &ParsedCode,
    call: Node,
    name: &str,
    constants: &HashMap<&str, &str>,
) -> Option<String> {
    let function = call.named_child(0).filter(|_| call.kind() == "await_expression").unwrap_or(call);
    function.child_by_field_name("function").filter(|f| program.text(*f) == name)?;
    let arguments = function.child_by_field_name("arguments")?;
    let whole = program.text(call);
    // The arguments are the end of the call.
    let before = &whole[..arguments.start_byte() - call.start_byte()];
    Some(format!("{before}{}", self_contained(program, arguments, constants)?))
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
        Some(log) if program.text(log) == "console.log" => only_argument(expression),
        _ => Some(expression),
    }
}

/// The call and the value in `assert.deepEqual(f(x), y)` and `expect(f(x)).toEqual(y)`.
fn asserted<'t>(program: &ParsedCode, assertion: Node<'t>) -> Option<(Node<'t>, Node<'t>)> {
    let function = assertion.child_by_field_name("function")?;
    let arguments = assertion.child_by_field_name("arguments")?;
    match program.text(function) {
        "assert.equal"
        | "assert.strictEqual"
        | "assert.deepEqual"
        | "assert.deepStrictEqual"
        | "assertEquals" => Some((arguments.named_child(0)?, arguments.named_child(1)?)),
        _ => {
            let expected = function.child_by_field_name("object")?;
            let subject = expected.child_by_field_name("function").map(|f| program.text(f));
            let matcher = function.child_by_field_name("property").map(|m| program.text(m));
            let equals = matches!(matcher, Some("toBe" | "toEqual" | "toStrictEqual"));
            let call = only_argument(expected).filter(|_| subject == Some("expect") && equals)?;
            Some((call, only_argument(assertion)?))
        }
    }
}

/// The argument of a call that has one.
fn only_argument(call: Node) -> Option<Node> {
    let arguments = call.child_by_field_name("arguments")?;
    arguments.named_child(0).filter(|_| arguments.named_child_count() == 1)
}

#[cfg(test)]
mod tests;
