//! The exported names of a repository: classes with their public methods, functions, and types.

use crate::language::{Language, MAX_SCOPES, named_children};
use crate::source::SourceFile;
use std::collections::{BTreeMap, BTreeSet};
use tree_sitter::Node;

/// The exported names of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportedApi {
    /// The public methods of each class, without constructors.
    pub classes: BTreeMap<String, BTreeSet<String>>,
    pub functions: BTreeSet<String>,
    /// Interfaces, type aliases and enums.
    pub types: BTreeSet<String>,
}

impl ExportedApi {
    /// Collects the exported names of TypeScript sources, without the files that curation drops as too large or too slow.
    pub fn from_sources(sources: &[SourceFile]) -> ExportedApi {
        let mut api = ExportedApi::default();
        for source in sources {
            if let Ok(tree) = Language::TypeScript.parse(&source.content, &source.path) {
                ExportCollector { text: &source.content }.scope(tree.root_node(), &mut api, 0);
            }
        }
        api
    }

    /// All names, methods without their class.
    pub fn names(&self) -> BTreeSet<String> {
        let methods = self.classes.values().flatten();
        self.classes.keys().chain(methods).chain(&self.functions).chain(&self.types).cloned().collect()
    }
}

/// A parsed source file.
struct ExportCollector<'a> {
    text: &'a str,
}

impl ExportCollector<'_> {
    /// Visits the statements of a file or namespace with `depth` namespaces around it.
    fn scope(&self, scope: Node, api: &mut ExportedApi, depth: usize) {
        let statements: Vec<Node> = named_children(scope).collect();
        if depth > MAX_SCOPES {
            return;
        }
        let listed: BTreeSet<&str> =
            statements.iter().flat_map(|statement| self.export_list(*statement)).collect();
        for statement in statements {
            let exported = statement.kind() == "export_statement";
            let declaration = match exported {
                true => statement.child_by_field_name("declaration"),
                false => Some(statement),
            };
            let Some(declaration) = declaration else { continue };
            let name = self.field(declaration, "name").unwrap_or_default();
            if exported || listed.contains(name) || is_constant(declaration) {
                self.declaration(declaration, exported, &listed, depth, api);
            }
        }
    }

    /// The names in `export { a, b as c }` and `export default a`, without re-exports of other modules.
    fn export_list<'t>(&'t self, statement: Node) -> Vec<&'t str> {
        if statement.kind() != "export_statement" || statement.child_by_field_name("source").is_some() {
            return Vec::new();
        }
        let default = statement.child_by_field_name("value").filter(|v| v.kind() == "identifier");
        let mut cursor = statement.walk();
        let clauses = statement.named_children(&mut cursor).filter(|n| n.kind() == "export_clause");
        let specifiers =
            clauses.flat_map(|clause| named_children(clause).filter_map(|s| s.child_by_field_name("name")));
        specifiers.chain(default).map(|n| self.slice(n)).collect()
    }

    fn declaration(
        &self,
        declaration: Node,
        exported: bool,
        listed: &BTreeSet<&str>,
        depth: usize,
        api: &mut ExportedApi,
    ) {
        let name = self.field(declaration, "name").unwrap_or_default().to_string();
        match declaration.kind() {
            "class_declaration" | "abstract_class_declaration" => {
                api.classes.entry(name).or_default().extend(self.methods(declaration));
            }
            "function_declaration" | "generator_function_declaration" | "function_signature" => {
                api.functions.insert(name);
            }
            "interface_declaration" | "type_alias_declaration" | "enum_declaration" => {
                api.types.insert(name);
            }
            "internal_module" | "module" => {
                if let Some(body) = declaration.child_by_field_name("body") {
                    self.scope(body, api, depth + 1);
                }
            }
            _ if is_constant(declaration) => {
                let mut cursor = declaration.walk();
                let names = declaration
                    .named_children(&mut cursor)
                    .filter(|d| d.child_by_field_name("value").is_some_and(is_function))
                    .filter_map(|d| self.field(d, "name"));
                let names = names.filter(|name| exported || listed.contains(name));
                api.functions.extend(names.map(str::to_string));
            }
            _ => {}
        }
    }

    /// The public methods of a class, and its fields that hold functions.
    fn methods(&self, class: Node) -> BTreeSet<String> {
        let Some(body) = class.child_by_field_name("body") else { return BTreeSet::new() };
        let members = named_children(body);
        let callable = members.filter(|member| match member.kind() {
            "method_definition" | "abstract_method_signature" => true,
            "public_field_definition" => member.child_by_field_name("value").is_some_and(is_function),
            _ => false,
        });
        let public = callable.filter(|member| {
            let mut cursor = member.walk();
            let hidden = |n: Node| {
                n.kind() == "accessibility_modifier" && ["private", "protected"].contains(&self.slice(n))
            };
            !member.children(&mut cursor).any(hidden)
        });
        public
            .filter_map(|member| self.field(member, "name"))
            .filter(|name| {
                *name != "constructor" && name.starts_with(|c: char| c.is_alphabetic() || c == '$')
            })
            .map(str::to_string)
            .collect()
    }

    fn slice(&self, node: Node) -> &str {
        &self.text[node.byte_range()]
    }

    fn field(&self, node: Node, name: &str) -> Option<&str> {
        node.child_by_field_name(name).map(|n| self.slice(n))
    }
}

fn is_constant(node: Node) -> bool {
    matches!(node.kind(), "lexical_declaration" | "variable_declaration")
}

fn is_function(node: Node) -> bool {
    matches!(node.kind(), "arrow_function" | "function_expression" | "generator_function")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api_of(content: &str) -> ExportedApi {
        let source = SourceFile { path: "a.ts".into(), content: content.into(), repo: None, license: None };
        ExportedApi::from_sources(&[source])
    }

    fn set(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn names_are_collected_from_every_form_of_export() {
        let api = api_of(
            "export class Client {\n  constructor() {}\n  get url() { return ''; }\n  send = () => 1;\n  \
             private hide() {}\n  protected keep() {}\n  #own() {}\n  _under() {}\n  static of() {}\n  count = 1;\n}\n\
             class Inner { run() {} }\nabstract class Listed { abstract go(): void }\nexport { Listed, aside as other };\n\
             function aside() {}\nfunction local() {}\nexport const make = () => 1, limit = 3;\nconst named = function () {};\n\
             export default named;\nexport interface Options { a: string }\nexport type Id = string;\n\
             export namespace Space { export function inside() {}\n function hidden() {} }\n\
             export { Foreign } from './b';",
        );
        assert_eq!(api.classes.keys().cloned().collect::<BTreeSet<_>>(), set("Client Listed"));
        assert_eq!(api.classes["Client"], set("url send of"));
        assert_eq!(api.classes["Listed"], set("go"));
        assert_eq!(api.functions, set("aside make named inside"));
        assert_eq!(api.types, set("Options Id"));
        assert!(api.names().contains("send") && !api.names().contains("hide"));
    }
}
