//! The names that TypeScript code uses and does not declare itself.

use crate::language::{descendants, walk};
use std::collections::BTreeSet;
use tree_sitter::Node;

/// Fields of a node by which it declares names.
const DECLARING: [(&str, &str); 14] = [
    ("required_parameter", "pattern"),
    ("optional_parameter", "pattern"),
    ("arrow_function", "parameter"),
    ("variable_declarator", "name"),
    ("function_declaration", "name"),
    ("generator_function_declaration", "name"),
    ("function_signature", "name"),
    ("function_expression", "name"),
    ("class_declaration", "name"),
    ("catch_clause", "parameter"),
    ("for_in_statement", "left"),
    ("type_parameter", "name"),
    ("mapped_type_clause", "name"),
    ("infer_type", ""),
];

/// The names that `node` uses and declares nowhere in itself. Scopes are not told apart: a name that one block declares
/// and another takes from outside counts as declared.
pub fn free_names<'a>(node: Node, text: &'a str) -> BTreeSet<&'a str> {
    let (mut used, mut declared) = (BTreeSet::new(), BTreeSet::new());
    walk(node, |node, _| {
        let names = DECLARING.iter().filter(|(kind, _)| *kind == node.kind());
        let patterns = names.filter_map(|(_, field)| match *field {
            "" => node.named_child(0),
            field => node.child_by_field_name(field),
        });
        patterns.for_each(|pattern| declared.extend(pattern_names(pattern, text)));
        if matches!(node.kind(), "identifier" | "type_identifier" | "shorthand_property_identifier") {
            used.insert(&text[node.byte_range()]);
        }
        true
    });
    used.difference(&declared).copied().collect()
}

/// The names that a pattern binds: a name, or those in `{ a, b: c = d, ...e }` and `[a, b]`.
pub fn pattern_names<'a>(pattern: Node, text: &'a str) -> Vec<&'a str> {
    let is_default = |node: &Node| {
        let around = node.parent().filter(|p| p.kind().ends_with("assignment_pattern"));
        around.is_some_and(|p| p.child_by_field_name("right") == Some(*node))
    };
    let kinds = ["identifier", "type_identifier", "shorthand_property_identifier_pattern"];
    let names = descendants(pattern).into_iter().filter(|n| kinds.contains(&n.kind()) && !is_default(n));
    names.map(|name| &text[name.byte_range()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn free(text: &str) -> Vec<&str> {
        let tree = Language::TypeScript.parse(text, "").unwrap();
        free_names(tree.root_node(), text).into_iter().collect()
    }

    #[test]
    fn names_from_outside_are_told_from_parameters_variables_and_properties() {
        let code = "function f<T extends Base>(a: T, { b, c: d = outer }: Options, ...rest: number[]): x is Y {\n  \
                    const [e, { g }] = rest; let h = a.property + { key: e, short };\n  \
                    for (const i of rest) try { i(b, d); } catch (error) { throw new Wrong(error); }\n  \
                    const inner = (j, k = j) => l => f(j, k, l, g, h);\n  return typeof helper === 'x' && inner;\n}";
        assert_eq!(free(code), ["Base", "Options", "Wrong", "Y", "helper", "outer", "short", "x"]);
        assert_eq!(
            free("type A<K> = { [P in keyof K]: B<P> } | (K extends C<infer I> ? I : never);"),
            ["A", "B", "C"]
        );
        assert_eq!(free("enum E { A = base, B }"), ["E", "base"]);
        assert_eq!(free("const a = x => x"), [""; 0]);
    }
}
