//! The places of a function where a hole can be cut: statements, the body of a block, an expression, arguments.

use crate::extract::Item;
use crate::item_rng::ItemRng;
use crate::language::{LanguageTable, descendants, named_children, walk};
use std::ops::Range;
use tree_sitter::Node;

/// Maximum statements that one hole takes, beside the whole body of a block.
const MAX_STATEMENTS: usize = 3;
/// Minimum bytes of an expression: less is not worth a row.
const MIN_EXPRESSION: usize = 4;
/// Maximum lines of a hole.
const MAX_LINES: usize = 40;

/// The body of a function in its file.
struct Function<'t> {
    text: &'t str,
    table: &'static LanguageTable,
    nodes: Vec<Node<'t>>,
    /// The docstring, which no hole takes: a row's code is asked for by what surrounds it.
    docstring: Option<&'t str>,
}

/// Finds the holes of a kind.
type HoleKind = fn(&Function) -> Vec<Range<usize>>;

const KINDS: [HoleKind; 4] = [statements, block_bodies, expressions, arguments];

/// Draws a hole in the function that is `item`. The kind is drawn before the place, so that frequent kinds do not
/// dominate.
pub fn draw_hole(
    text: &str,
    root: Node,
    item: &Item,
    table: &'static LanguageTable,
    rng: &ItemRng,
) -> Option<Range<usize>> {
    let body = body(root, &item.bytes)?;
    let docstring = Some(item.comment.as_str()).filter(|comment| !comment.is_empty());
    let function = Function { text, table, nodes: descendants(body), docstring };
    let first = rng.below(0, KINDS.len());
    (0..KINDS.len()).find_map(|i| {
        let mut holes = KINDS[(first + i) % KINDS.len()](&function);
        holes.retain(|hole| function.is_worth_filling(hole));
        (!holes.is_empty()).then(|| holes.swap_remove(rng.below(1, holes.len())))
    })
}

/// Finds the body of the function in a range of the file.
fn body<'t>(root: Node<'t>, range: &Range<usize>) -> Option<Node<'t>> {
    let mut body = None;
    walk(root.descendant_for_byte_range(range.start, range.end)?, |node, _| {
        let (start, end) = (node.start_byte(), node.end_byte());
        if body.is_none() && range.start <= start && end <= range.end {
            body = node.child_by_field_name("body");
        }
        body.is_none() && start < range.end && range.start < end
    });
    body
}

impl<'t> Function<'t> {
    fn slice(&self, node: Node) -> &'t str {
        &self.text[node.byte_range()]
    }

    fn is_worth_filling(&self, hole: &Range<usize>) -> bool {
        let text = &self.text[hole.clone()];
        !text.trim().is_empty() && text.lines().count() <= MAX_LINES
    }

    fn of_kinds(&self, kinds: &'static [&'static str]) -> impl Iterator<Item = Node<'t>> {
        self.nodes.iter().copied().filter(move |node| kinds.contains(&node.kind()))
    }

    /// The statements of a block, with its comments and without the docstring.
    fn statements_of(&self, block: Node<'t>) -> Vec<Node<'t>> {
        let is_docstring = |node: &Node| Some(self.slice(*node)) == self.docstring;
        named_children(block).filter(|node| !is_docstring(node)).collect()
    }
}

/// Runs of a few statements.
fn statements(function: &Function) -> Vec<Range<usize>> {
    let is_comment = |node: &Node| function.table.comments.contains(&node.kind());
    let runs = |block: Node| {
        let all = function.statements_of(block);
        let mut runs = Vec::new();
        for (i, first) in all.iter().enumerate().filter(|(_, first)| !is_comment(first)) {
            let lasts = all[i..].iter().take(MAX_STATEMENTS).filter(|last| !is_comment(last));
            runs.extend(lasts.map(|last| first.start_byte()..last.end_byte()));
        }
        runs
    };
    function.of_kinds(function.table.blocks).flat_map(runs).collect()
}

/// The bodies of blocks, from the brace or colon to the last statement.
fn block_bodies(function: &Function) -> Vec<Range<usize>> {
    let body = |block: Node| {
        let all = function.statements_of(block);
        let (first, last) = (all.first()?, all.last()?);
        let start = first.prev_sibling().or_else(|| block.prev_sibling())?.end_byte();
        Some(start..last.end_byte())
    };
    function.of_kinds(function.table.blocks).filter_map(body).collect()
}

/// Values, right sides, conditions and returned expressions.
fn expressions(function: &Function) -> Vec<Range<usize>> {
    let fields = ["value", "right", "condition"];
    let nodes = function.nodes.iter();
    let by_field = nodes.flat_map(|node| fields.map(|field| node.child_by_field_name(field))).flatten();
    let returned = function.of_kinds(function.table.returns).filter_map(|node| node.named_child(0));
    let inside = by_field.chain(returned).map(without_parentheses);
    inside.map(|node| node.byte_range()).filter(|range| range.len() >= MIN_EXPRESSION).collect()
}

/// Returns the expression in a condition's parentheses.
fn without_parentheses(node: Node) -> Node {
    match (node.child(0).map(|first| first.kind()), node.named_child_count()) {
        (Some("("), 1) => node.named_child(0).unwrap_or(node),
        _ => node,
    }
}

/// Arguments, as they stand in the parentheses of calls.
fn arguments(function: &Function) -> Vec<Range<usize>> {
    let inside = |list: Node| {
        let mut all = named_children(list);
        let first = all.next()?;
        Some(first.start_byte()..all.next_back().unwrap_or(first).end_byte())
    };
    function.of_kinds(function.table.arguments).filter_map(inside).collect()
}
