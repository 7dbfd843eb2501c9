//! Walks over syntax trees without recursion: a file decides how deep its tree is.

use tree_sitter::Node;

/// Depth of the nodes of an item at which it is dropped: no function that anyone reads is nested that deep.
pub const MAX_DEPTH: usize = 512;
/// Maximum namespaces and classes around a declaration; what is deeper is not read.
pub const MAX_SCOPES: usize = 32;

/// Visits `root` and the named nodes below it in pre-order, each with its depth below `root`; `visit` returns whether
/// to go below the node.
pub fn walk<'t>(root: Node<'t>, mut visit: impl FnMut(Node<'t>, usize) -> bool) {
    let mut cursor = root.walk();
    let mut depth = 0;
    loop {
        let node = cursor.node();
        let enters = (depth == 0 || node.is_named()) && visit(node, depth);
        if enters && cursor.goto_first_child() {
            depth += 1;
            continue;
        }
        // The cursor does not leave `root`.
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            depth -= 1;
        }
    }
}

/// The named children of a node.
pub fn named_children<'t>(node: Node<'t>) -> impl DoubleEndedIterator<Item = Node<'t>> {
    // A text of at most 16 MiB has fewer nodes.
    (0..node.named_child_count() as u32).filter_map(move |i| node.named_child(i))
}

/// The named nodes of a tree in pre-order.
pub fn descendants(root: Node) -> Vec<Node> {
    let mut nodes = Vec::new();
    walk(root, |node, _| {
        nodes.push(node);
        true
    });
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    #[test]
    fn nodes_come_in_pre_order_with_their_depths_and_what_is_not_entered_is_skipped() {
        let text = "f(a, [b]); c;";
        let tree = Language::TypeScript.parse(text, "").unwrap();
        let mut found = Vec::new();
        walk(tree.root_node(), |node, depth| {
            found.push((node.kind(), depth));
            node.kind() != "array"
        });
        let expected = [
            ("program", 0),
            ("expression_statement", 1),
            ("call_expression", 2),
            ("identifier", 3),
            ("arguments", 3),
            ("identifier", 4),
            ("array", 4),
            ("expression_statement", 1),
            ("identifier", 2),
        ];
        assert_eq!(found, expected);
        assert_eq!(descendants(tree.root_node()).len(), expected.len() + 1);
    }

    #[test]
    fn a_walk_stays_below_its_root() {
        let tree = Language::TypeScript.parse("a; b; c;", "").unwrap();
        let middle = tree.root_node().named_child(1).unwrap();
        assert_eq!(descendants(middle).len(), 2);
    }
}
