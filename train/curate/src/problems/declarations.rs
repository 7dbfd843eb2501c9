//! The declarations of a file's top level, and those that a function needs to run.

use super::names::{free_names, pattern_names};
use crate::language::walk;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tree_sitter::{Node, Tree};

/// Maximum bytes of the declarations before a function.
const MAX_BYTES: usize = 6000;

/// The reason why a function does not stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAlone {
    /// It needs a file of the repository.
    ImportsFile,
    /// It needs a package, or a module of Node.
    ImportsPackage,
    /// It is no declaration of the top level: its namespace is missing.
    Nested,
    /// Declarations that it needs are too long for a prompt.
    TooMuch,
}

impl NotAlone {
    /// The name among the reasons to drop a function.
    pub fn reason(self) -> &'static str {
        match self {
            NotAlone::ImportsFile => "imports-file",
            NotAlone::ImportsPackage => "imports-package",
            NotAlone::Nested => "nested",
            NotAlone::TooMuch => "needs-too-much",
        }
    }
}

/// The names of a file's top level.
pub struct Declarations<'a> {
    text: &'a str,
    /// Declarations by name: the overloads of a function and the parts of an interface share one.
    by_name: HashMap<&'a str, Vec<Node<'a>>>,
    /// The module of each imported name.
    imported: HashMap<&'a str, &'a str>,
}

impl<'a> Declarations<'a> {
    /// Lists the declarations and imports of a file.
    pub fn read(tree: &'a Tree, text: &'a str) -> Declarations<'a> {
        let mut file = Declarations { text, by_name: HashMap::new(), imported: HashMap::new() };
        let mut cursor = tree.walk();
        for statement in tree.root_node().named_children(&mut cursor) {
            let inside = match statement.kind() {
                "export_statement" => statement.child_by_field_name("declaration"),
                "expression_statement" => statement.named_child(0),
                _ => Some(statement),
            };
            let Some(node) = inside else { continue };
            match required_module(node, text) {
                _ if node.kind() == "import_statement" => file.import(node),
                Some(module) => file.names_of(node).into_iter().for_each(|name| {
                    file.imported.insert(name, module);
                }),
                None => file.names_of(node).into_iter().for_each(|name| {
                    file.by_name.entry(name).or_default().push(node);
                }),
            }
        }
        file
    }

    /// The declarations that the function `name` of the top level needs, itself left out, in the order of the file.
    ///
    /// # Errors
    /// When it is none of the top level, when it or one of them needs an import, or when they are too long.
    pub fn needed_by(&self, name: &str) -> Result<String, NotAlone> {
        let mut open = self.by_name.get(name).ok_or(NotAlone::Nested)?.clone();
        // Any number of declarations may share the name.
        if open.iter().map(|node| node.byte_range().len()).sum::<usize>() > 2 * MAX_BYTES {
            return Err(NotAlone::TooMuch);
        }
        let (mut seen, mut needed) = (BTreeSet::from([name]), BTreeMap::new());
        let mut bytes = 0;
        while let Some(node) = open.pop() {
            for used in free_names(node, self.text) {
                if let Some(module) = self.imported.get(used) {
                    let of_file = module.starts_with('.');
                    return Err(if of_file { NotAlone::ImportsFile } else { NotAlone::ImportsPackage });
                }
                if !seen.insert(used) {
                    continue;
                }
                for &declaration in self.by_name.get(used).into_iter().flatten() {
                    let text = &self.text[declaration.byte_range()];
                    if needed.insert(declaration.start_byte(), text).is_none() {
                        bytes += text.len();
                        open.push(declaration);
                    }
                    if bytes > MAX_BYTES {
                        return Err(NotAlone::TooMuch);
                    }
                }
            }
        }
        Ok(needed.into_values().collect::<Vec<_>>().join("\n"))
    }

    /// The names that a statement declares.
    fn names_of(&self, node: Node<'a>) -> Vec<&'a str> {
        let mut cursor = node.walk();
        match node.kind() {
            "lexical_declaration" | "variable_declaration" => {
                let declarators =
                    node.named_children(&mut cursor).filter_map(|d| d.child_by_field_name("name"));
                declarators.flat_map(|name| pattern_names(name, self.text)).collect()
            }
            "ambient_declaration" => {
                node.named_child(0).map(|inner| self.names_of(inner)).unwrap_or_default()
            }
            _ => node
                .child_by_field_name("name")
                .map(|name| &self.text[name.byte_range()])
                .into_iter()
                .collect(),
        }
    }

    fn import(&mut self, import: Node<'a>) {
        let mut cursor = import.walk();
        let clause = import.named_children(&mut cursor).find(|n| n.kind().starts_with("import_"));
        let source = import.child_by_field_name("source");
        let source = source.or_else(|| clause.and_then(|clause| clause.child_by_field_name("source")));
        let module = source.map_or("", |source| unquoted(source, self.text));
        let Some(clause) = clause else { return };
        walk(clause, |node, _| {
            let specifier = ["alias", "name"].into_iter().find_map(|field| node.child_by_field_name(field));
            let name = specifier.unwrap_or(node);
            if name.kind() == "identifier" {
                self.imported.insert(&self.text[name.byte_range()], module);
            }
            specifier.is_none()
        });
    }
}

/// The module of `const x = require('module')`.
fn required_module<'a>(node: Node, text: &'a str) -> Option<&'a str> {
    let value = node.named_child(0)?.child_by_field_name("value")?;
    let function = value.child_by_field_name("function")?;
    let module = value.child_by_field_name("arguments")?.named_child(0)?;
    (&text[function.byte_range()] == "require").then(|| unquoted(module, text))
}

fn unquoted<'a>(string: Node, text: &'a str) -> &'a str {
    text[string.byte_range()].trim_matches(['"', '\'', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn needed(text: &str, name: &str) -> Result<String, NotAlone> {
        let tree = Language::TypeScript.parse(text, "a.ts").unwrap();
        Declarations::read(&tree, text).needed_by(name)
    }

    const FILE: &str = "import a, { b as c, type D } from './local';\nimport * as e from 'package';\n\
        const g = require('node:fs');\n\
        export type Options = { limit: Limit };\ninterface Limit { n: number }\nexport enum Kind { One }\n\
        const { first, second: [third] } = { first: 1, second: [Kind.One] };\n\
        export function helper(o: Options): number { return o.limit.n + first; }\n\
        function even(n: number): boolean { return n === 0 || odd(n - 1); }\n\
        function odd(n: number): boolean { return n !== 0 && even(n - 1); }\n\
        export const run = (o: Options) => helper(o);\n\
        function alone(a: number) { return a + Math.max(a, 1); }\n\
        function local() { return c(1); }\nfunction deep() { return local(); }\n\
        function packaged(x: D) { return e.f(x); }\nfunction reads() { return g.readFileSync; }\n\
        namespace N { export function inner() { return 1; } }\n";

    #[test]
    fn a_function_comes_with_all_that_it_needs_of_its_file_in_its_order() {
        let expected = "type Options = { limit: Limit };\ninterface Limit { n: number }\nenum Kind { One }\n\
                        const { first, second: [third] } = { first: 1, second: [Kind.One] };\n\
                        function helper(o: Options): number { return o.limit.n + first; }";
        assert_eq!(needed(FILE, "run").unwrap(), expected);
        assert_eq!(needed(FILE, "alone").unwrap(), "", "a parameter is no import of its name");
        assert!(needed(FILE, "even").unwrap().starts_with("function odd("));
        let overloads = "function g(a: 1): 1;\nfunction g(a: 2): 2;\nfunction g(a: any) { return a; }\nfunction f() { return g(1); }";
        assert_eq!(needed(overloads, "f").unwrap().lines().count(), 3);
        assert_eq!(needed(overloads, "g").unwrap(), "");
    }

    #[test]
    fn what_keeps_a_function_from_standing_alone_is_named() {
        for (name, reason) in [
            ("local", NotAlone::ImportsFile),
            ("deep", NotAlone::ImportsFile),
            ("packaged", NotAlone::ImportsFile),
            ("reads", NotAlone::ImportsPackage),
            ("inner", NotAlone::Nested),
        ] {
            assert_eq!(needed(FILE, name), Err(reason), "{name}");
        }
        let long = format!("const table = [{}];\nfunction f() {{ return table; }}", "1,".repeat(MAX_BYTES));
        assert_eq!(needed(&long, "f"), Err(NotAlone::TooMuch));
        let many = "/** A namesake. */ function f() { return 1; }\n".repeat(1000);
        assert_eq!(needed(&many, "f"), Err(NotAlone::TooMuch));
        // A chain of a hundred thousand functions ends at the limit.
        let chain: String =
            (0..100_000).map(|i| format!("function f{i}() {{ return f{}(); }}\n", i + 1)).collect();
        assert_eq!(needed(&chain, "f0"), Err(NotAlone::TooMuch));
    }
}
