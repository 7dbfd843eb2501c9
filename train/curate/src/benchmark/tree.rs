//! Normalized syntax trees of function bodies, which are unchanged by renaming, reformatting and other comments.
//!
//! Identifiers are numbered in the order of their first use, literals are reduced to their kinds, operators are kept.
//! Comments, types, keywords, punctuation, and parentheses and blocks around a single node are removed.

use crate::language::{Language, LanguageTable, MAX_DEPTH, walk};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use tree_sitter::{Node, Tree};

/// Minimum nodes of a specific body; smaller ones (sums, copies in a loop) are common.
const MIN_NODES: usize = 24;

/// The hashes of the function bodies in a problem's solution and prompt.
pub fn hashes_of_problem(prompt: &str, solution: Option<&str>, language: Language) -> Vec<u64> {
    let solution = solution.unwrap_or_default();
    // A solution is a complete program, or a body that continues the prompt and may leave brackets open.
    let candidates = [solution.to_string()]
        .into_iter()
        .chain(["", "\n}", "\n}\n}"].map(|end| format!("{prompt}{solution}{end}")));
    let hashes = |text: String| parsed(&text, language).map(|tree| body_hashes(&text, &tree, language));
    let mut all: Vec<u64> = candidates.filter_map(hashes).flatten().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The hashes of the function bodies in a piece of code, which may be a method without its class.
pub fn hashes_of_code(code: &str, language: Language) -> Vec<u64> {
    let inside = format!("class X {{\n{code}\n}}");
    [code, &inside]
        .into_iter()
        .find_map(|text| parsed(text, language).map(|tree| body_hashes(text, &tree, language)))
        .unwrap_or_default()
}

/// The syntax tree of text that has no syntax error.
fn parsed(text: &str, language: Language) -> Option<Tree> {
    language.parse(text, "").ok().filter(|tree| !tree.root_node().has_error())
}

/// The hashes of the function bodies in a tree.
fn body_hashes(text: &str, tree: &Tree, language: Language) -> Vec<u64> {
    let table = language.table();
    let mut hashes = Vec::new();
    walk(tree.root_node(), |node, _| {
        let is_function =
            [table.functions, table.methods, table.lambdas].iter().any(|kinds| kinds.contains(&node.kind()));
        if let Some(body) = node.child_by_field_name("body").filter(|_| is_function) {
            let mut hasher =
                TreeHasher { text, table, names: HashMap::new(), hasher: DefaultHasher::new(), nodes: 0 };
            hasher.block(body);
            if hasher.nodes >= MIN_NODES {
                hashes.push(hasher.hasher.finish());
            }
        }
        true
    });
    hashes
}

/// The state of hashing one body.
struct TreeHasher<'a> {
    text: &'a str,
    table: &'static LanguageTable,
    names: HashMap<&'a str, usize>,
    hasher: DefaultHasher,
    nodes: usize,
}

impl TreeHasher<'_> {
    /// Hashes the statements of a body without its docstring.
    fn block(&mut self, body: Node) {
        let mut cursor = body.walk();
        let is_docstring = |n: &Node| {
            let string = n.named_child(0).filter(|_| n.named_child_count() == 1);
            n.kind() == "expression_statement" && string.is_some_and(|s| s.kind() == "string")
        };
        let statements: Vec<Node> = body.named_children(&mut cursor).filter(|n| !is_docstring(n)).collect();
        statements.into_iter().for_each(|statement| self.node(statement, 0));
    }

    /// Hashes a node at a depth below the body; deeper ones than those of any item are left out.
    fn node(&mut self, node: Node, depth: usize) {
        let kind = node.kind();
        if self.table.comments.contains(&kind) || depth > MAX_DEPTH {
            return;
        }
        let mut cursor = node.walk();
        let children: Vec<(Node, Option<&str>)> = node
            .children(&mut cursor)
            .enumerate()
            .map(|(i, child)| (child, node.field_name_for_child(i as u32)))
            .filter(|(child, field)| is_kept(*child, *field) && !self.table.comments.contains(&child.kind()))
            .collect();
        let brackets = matches!(kind, "parenthesized_expression" | "expression_statement")
            || (matches!(kind, "statement_block" | "block" | "compound_statement") && children.len() == 1);
        match &children[..] {
            [(only, _)] if brackets => return self.node(*only, depth + 1),
            [] if kind.ends_with("identifier") || matches!(kind, "this" | "self") => {
                let next = self.names.len();
                let number = *self.names.entry(&self.text[node.byte_range()]).or_insert(next);
                ('n', number).hash(&mut self.hasher);
            }
            _ => kind.hash(&mut self.hasher),
        }
        self.nodes += 1;
        if !kind.contains("string") || kind.contains("template") {
            '('.hash(&mut self.hasher);
            children.into_iter().for_each(|(child, _)| self.node(child, depth + 1));
            ')'.hash(&mut self.hasher);
        }
    }
}

/// Returns whether a child is part of the normalized tree: not a type, keyword or punctuation.
fn is_kept(child: Node, field: Option<&str>) -> bool {
    match field {
        Some("operator" | "operators") => true,
        Some("type" | "return_type" | "type_parameters" | "type_arguments") => false,
        _ => child.is_named() && !child.kind().starts_with("type_") && child.kind() != "modifiers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A solution, and a copy with other names, format and comments.
    const COPIES: [(Language, &str, &str); 6] = [
        (
            Language::TypeScript,
            "function gaps(xs: number[], limit: number): number[] {\n  const out: number[] = [];\n  for (const x of xs) {\n    if (x > limit && out.length < 10) {\n      out.push(x - limit);\n    }\n  }\n  return out;\n}",
            "take(values, most) {\n  // Collects.\n  let found = []\n  for (let v of values) if ((v > most) && found.length < 99)\n    found.push((v - most)) /* so */\n  return found\n}",
        ),
        (
            Language::JavaScript,
            "const gaps = (xs, limit) => {\n  const out = [];\n  for (const x of xs) {\n    if (x > limit && out.length < 10) out.push(x - limit, 'a');\n  }\n  return out;\n};",
            "function other(values, most) {\n  let c = []\n  for (const d of values) { if (d > most && c.length < 1) { c.push(d - most, \"b\") } }\n  return c\n}",
        ),
        (
            Language::Python,
            "def gaps(xs: List[int], limit) -> List[int]:\n    \"\"\"Gaps.\"\"\"\n    out: List[int] = []\n    for x in xs:\n        if x > limit and len(out) < 10:\n            out.append(x - limit)\n    return out\n",
            "def take(self, values, most):\n        # Collects.\n        found = []\n        for v in values:\n            if (v > most and len(found) < 99):\n                found.append(v - most)\n        return found\n",
        ),
        (
            Language::Java,
            "class Problem {\n  static List<Integer> gaps(List<Integer> xs, int limit) {\n    List<Integer> out = new ArrayList<>();\n    for (int x : xs) {\n      if (x > limit && out.size() < 10) {\n        out.add(x - limit);\n      }\n    }\n    return out;\n  }\n}",
            "public List<Long> take(List<Long> values, long most) {\n  var found = new ArrayList<Long>();\n  for (final long v : values) if (v > most && found.size() < 99) found.add(v - most);\n  return found; // done\n}",
        ),
        (
            Language::Cpp,
            "std::vector<int> gaps(std::vector<int> xs, int limit) {\n  std::vector<int> out;\n  for (int x : xs) {\n    if (x > limit && out.size() < 10) {\n      out.push_back(x - limit);\n    }\n  }\n  return out;\n}",
            "vector<long> take(const vector<long>& values, long most) {\n  vector<long> found;\n  for (auto v : values)\n    if (v > most && found.size() < 99) found.push_back(v - most); // so\n  return found;\n}",
        ),
        (
            Language::Rust,
            "fn gaps(xs: Vec<i32>, limit: i32) -> Vec<i32> {\n    let mut out: Vec<i32> = Vec::new();\n    for x in xs {\n        if x > limit && out.len() < 10 {\n            out.push(x - limit);\n        }\n    }\n    out\n}",
            "pub fn take(&self, values: &[i64], most: i64) -> Vec<i64> {\n    let mut found = Vec::new(); // so\n    for v in values {\n        if (v > most) && found.len() < 99 { found.push(v - most); }\n    }\n    found\n}",
        ),
    ];

    #[test]
    fn a_renamed_and_reformatted_copy_has_the_same_hash() {
        for (language, solution, copy) in COPIES {
            let known = hashes_of_problem("", Some(solution), language);
            assert_eq!(known.len(), 1, "{language:?}");
            assert_eq!(hashes_of_code(copy, language), known, "{language:?}");
            for (sign, other) in [(" - ", " + "), ("most", "values")] {
                assert_ne!(
                    hashes_of_code(&copy.replace(sign, other), language),
                    known,
                    "{language:?}: {other} for {sign}"
                );
            }
        }
    }

    #[test]
    fn a_body_continues_its_prompt_and_small_bodies_are_ignored() {
        let (_, whole, _) = COPIES[3];
        let (prompt, body) = whole.split_at(whole.find("    List<Integer> out").unwrap());
        let body = body.trim_end_matches(['}', '\n', ' ']).to_string() + "\n    }";
        assert_eq!(
            hashes_of_problem(prompt, Some(&body), Language::Java),
            hashes_of_problem("", Some(whole), Language::Java)
        );
        assert!(hashes_of_code("function add(a, b) {\n  return a + b;\n}", Language::TypeScript).is_empty());
        assert!(hashes_of_code("function (", Language::TypeScript).is_empty());
    }
}
