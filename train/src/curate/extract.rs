//! Functions, methods and classes of a TypeScript file, each with the comment that leads it.

use super::Kind;
use codelsi_engine::{Error, Result};
use tree_sitter::{Language, Node, Parser};

/// A declaration with a body.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: Kind,
    /// Of a method: `Class.method`.
    pub name: String,
    /// `name<T>(a: A): R`, of a class its heading; on one line.
    pub signature: String,
    /// Words for what it is, as `async function` or `static method`.
    pub noun: String,
    /// The comment that leads it: its last JSDoc block, or else its last run of `//` lines. May be empty.
    pub comment: String,
    /// Overloads and body, free of `export` and of indentation: an answer is a program, not a part of a module.
    pub code: String,
    /// The parser found an error in it.
    pub broken: bool,
}

/// Parses one file and returns its items in the order of the text. `tsx` selects the grammar with JSX.
///
/// Nested functions belong to the item around them; a class comes before its methods.
pub fn items(text: &str, tsx: bool) -> Result<Vec<Item>> {
    let language: Language = match tsx {
        true => tree_sitter_typescript::LANGUAGE_TSX,
        false => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
    }
    .into();
    let mut parser = Parser::new();
    parser.set_language(&language).map_err(|e| Error::new(format!("TypeScript grammar: {e}")))?;
    let tree = parser.parse(text, None).ok_or_else(|| Error::new("the TypeScript parser gave up"))?;
    let mut file = File { text, items: Vec::new() };
    file.scope(tree.root_node());
    Ok(file.items)
}

struct File<'a> {
    text: &'a str,
    items: Vec<Item>,
}

impl<'a> File<'a> {
    /// Statements of a file or of a namespace.
    fn scope(&mut self, scope: Node) {
        if scope.is_error() {
            // One broken item for the text around those that the parser could still read.
            self.push(Kind::Function, String::new(), String::new(), String::new(), Lead::default(), scope);
        }
        for statement in named_children(scope) {
            let Some(declaration) = exported(statement) else {
                continue;
            };
            match declaration.kind() {
                "function_declaration" | "generator_function_declaration" => {
                    self.function(statement, declaration)
                }
                "lexical_declaration" | "variable_declaration" => self.constant(statement, declaration),
                "class_declaration" | "abstract_class_declaration" => self.class(statement, declaration),
                "ERROR" => self.scope(declaration),
                "internal_module" | "module" => {
                    if let Some(body) = declaration.child_by_field_name("body") {
                        self.scope(body);
                    }
                }
                _ => {}
            }
        }
    }

    fn function(&mut self, statement: Node, declaration: Node) {
        let Some(name) = self.field(declaration, "name") else {
            return;
        };
        let lead = Lead::of(self, statement, name);
        let signature = self.signature(name, lead.overloads.first().copied().unwrap_or(declaration));
        let noun = self.noun(declaration, "function");
        self.push(Kind::Function, name.to_string(), signature, noun, lead, declaration);
    }

    /// `const f = (…) => …` or `= function …`, alone in its statement.
    fn constant(&mut self, statement: Node, declaration: Node) {
        let declarators: Vec<Node> =
            named_children(declaration).filter(|n| n.kind() == "variable_declarator").collect();
        let [declarator] = declarators[..] else {
            return;
        };
        let (Some(name), Some(value)) = (
            self.field(declarator, "name"),
            declarator.child_by_field_name("value").filter(|v| is_function(*v)),
        ) else {
            return;
        };
        let signature = match declarator.child_by_field_name("type") {
            Some(kind) => one_line(&format!("{name}{}", self.slice(kind))),
            None => self.signature(name, value),
        };
        let (lead, noun) = (Lead::of(self, statement, name), self.noun(value, "function"));
        self.push(Kind::Function, name.to_string(), signature, noun, lead, declaration);
    }

    fn class(&mut self, statement: Node, declaration: Node) {
        let (Some(name), Some(body)) =
            (self.field(declaration, "name"), declaration.child_by_field_name("body"))
        else {
            return;
        };
        let heading = &self.text[declaration.start_byte()..body.start_byte()];
        let heading = heading.rsplit_once("class ").map_or(heading, |(_, h)| h);
        let noun = if declaration.kind().starts_with("abstract") { "abstract class" } else { "class" };
        let lead = Lead::of(self, statement, name);
        self.push(Kind::Class, name.to_string(), one_line(heading), noun.to_string(), lead, declaration);
        for member in named_children(body) {
            self.method(name, member);
        }
    }

    /// A method, or a field that holds a function.
    fn method(&mut self, class: &str, member: Node) {
        let function = match member.kind() {
            "method_definition" => member,
            "public_field_definition" => {
                match member.child_by_field_name("value").filter(|v| is_function(*v)) {
                    Some(value) => value,
                    None => return,
                }
            }
            _ => return,
        };
        let Some(name) = self.field(member, "name") else {
            return;
        };
        let lead = Lead::of(self, member, name);
        let signature = self.signature(name, lead.overloads.first().copied().unwrap_or(function));
        let noun = if name == "constructor" { name.to_string() } else { self.noun(member, "method") };
        self.push(Kind::Method, format!("{class}.{name}"), signature, noun, lead, member);
    }

    fn push(&mut self, kind: Kind, name: String, signature: String, noun: String, lead: Lead, body: Node) {
        let parts = lead.decorators.iter().chain(&lead.overloads).chain([&body]);
        let code: Vec<String> = parts.clone().map(|part| self.dedented(*part)).collect();
        let broken = parts.into_iter().any(|part| part.has_error());
        let comment = leading(lead.comments.iter().map(|c| self.slice(*c)));
        self.items.push(Item { kind, name, signature, noun, comment, code: code.join("\n"), broken });
    }

    /// `name<T>(a: A): R` from a node with these fields.
    fn signature(&self, name: &str, node: Node) -> String {
        let generics = self.field(node, "type_parameters").unwrap_or_default();
        let parameters: Vec<&str> = match node.child_by_field_name("parameters") {
            Some(list) => {
                named_children(list).filter(|p| p.kind() != "comment").map(|p| self.slice(p)).collect()
            }
            // `x => …` has one bare parameter.
            None => self.field(node, "parameter").into_iter().collect(),
        };
        let returns = self.field(node, "return_type").unwrap_or_default();
        one_line(&format!("{name}{generics}({}){returns}", parameters.join(", ")))
    }

    /// The keywords before the name that a reader would say aloud, then `what` (`getter` for `get`).
    fn noun(&self, node: Node, what: &str) -> String {
        let mut words: Vec<&str> = Vec::new();
        let mut what = what;
        let mut cursor = node.walk();
        for child in node.children(&mut cursor).take_while(|c| c.kind() != "statement_block") {
            match child.kind() {
                word @ ("static" | "async") => words.push(word),
                "*" => words.push("generator"),
                "get" => what = "getter",
                "set" => what = "setter",
                _ => {}
            }
        }
        words.push(what);
        words.join(" ")
    }

    fn slice(&self, node: Node) -> &'a str {
        &self.text[node.byte_range()]
    }

    fn field(&self, node: Node, name: &str) -> Option<&'a str> {
        node.child_by_field_name(name).map(|n| self.slice(n))
    }

    /// The node's text, its later lines moved left by as much as its first line was indented.
    fn dedented(&self, node: Node) -> String {
        let line_start = self.text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        let line = &self.text[line_start..];
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let lines = self.slice(node).lines().map(|l| l.strip_prefix(indent).unwrap_or(l));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What stands before a declaration and belongs to it.
#[derive(Default)]
struct Lead<'t> {
    decorators: Vec<Node<'t>>,
    overloads: Vec<Node<'t>>,
    /// Nearest first.
    comments: Vec<Node<'t>>,
}

impl<'t> Lead<'t> {
    /// Walks back from `statement` over comments without a gap, decorators, and overloads of `name`.
    fn of(file: &File, statement: Node<'t>, name: &str) -> Lead<'t> {
        let mut lead = Lead::default();
        let mut cursor = statement.walk();
        lead.decorators.extend(
            statement
                .children(&mut cursor)
                .filter(|c| c.kind() == "decorator" && statement.kind() == "export_statement"),
        );
        let mut next = statement;
        while let Some(node) = next.prev_named_sibling() {
            let touches = node.end_position().row + 1 >= next.start_position().row;
            match node.kind() {
                "comment" if touches && !trails(node) => lead.comments.push(node),
                "decorator" => lead.decorators.insert(0, node),
                _ => match overload(node).filter(|o| file.field(*o, "name") == Some(name)) {
                    Some(overload) => {
                        // The comment of the first overload speaks for all.
                        if has_comment(node) {
                            lead.comments.clear();
                        }
                        lead.overloads.insert(0, overload);
                    }
                    None => break,
                },
            }
            next = node;
        }
        lead
    }
}

/// The nearest JSDoc block, or else the nearest comment: one block, or the `//` lines that follow each other.
fn leading<'a>(nearest_first: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(block) = nearest_first.clone().find(|c| c.starts_with("/**")) {
        return block.to_string();
    }
    let mut lines: Vec<&str> = nearest_first.clone().take_while(|c| c.starts_with("//")).collect();
    if lines.is_empty() {
        lines.extend(nearest_first.clone().next());
    }
    lines.reverse();
    lines.join("\n")
}

/// Whether a comment ends the line of what comes before it, and so speaks of that.
fn trails(comment: Node) -> bool {
    comment.prev_sibling().is_some_and(|p| p.end_position().row == comment.start_position().row)
}

fn has_comment(node: Node) -> bool {
    node.prev_named_sibling().is_some_and(|p| p.kind() == "comment")
}

fn overload(statement: Node) -> Option<Node> {
    let node = exported(statement)?;
    matches!(node.kind(), "function_signature" | "method_signature").then_some(node)
}

/// What an `export` statement declares; any other statement itself (a namespace is wrapped in an expression).
fn exported(statement: Node) -> Option<Node> {
    match statement.kind() {
        "export_statement" => statement.child_by_field_name("declaration"),
        "expression_statement" => statement.named_child(0),
        _ => Some(statement),
    }
}

fn is_function(node: Node) -> bool {
    matches!(node.kind(), "arrow_function" | "function_expression" | "generator_function")
}

fn named_children<'t>(node: Node<'t>) -> impl Iterator<Item = Node<'t>> {
    (0..node.named_child_count()).filter_map(move |i| node.named_child(i))
}

/// Line breaks and what a formatter adds for them, away.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("( ", "(")
        .replace(", )", ")")
        .replace(" )", ")")
        .replace("< ", "<")
        .replace(", >", ">")
        .replace(" >(", ">(")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Item {
        let mut found = items(text, false).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_function_loses_its_export_and_keeps_its_comment() {
        let text = "// Copyright\n\nimport a from 'a';\n\n/** Adds. */\n// eslint-disable-next-line\n\
                    export async function add<T>(\n  a: T, // first\n  b: T,\n): Promise<T> {\n  return a;\n}\n";
        let item = only(text);
        assert_eq!(
            (item.kind, item.name.as_str(), item.noun.as_str()),
            (Kind::Function, "add", "async function")
        );
        assert_eq!(item.signature, "add<T>(a: T, b: T): Promise<T>");
        assert_eq!(item.comment, "/** Adds. */");
        assert!(item.code.starts_with("async function add") && item.code.ends_with('}') && !item.broken);
    }

    #[test]
    fn constants_that_hold_functions_count() {
        let item =
            only("/** Doubles. */\nexport const double = (x: number): number => {\n  return 2 * x;\n};");
        assert_eq!(
            (item.signature.as_str(), item.comment.as_str()),
            ("double(x: number): number", "/** Doubles. */")
        );
        assert_eq!(only("const id: <A>(a: A) => A = a => a").signature, "id: <A>(a: A) => A");
        assert!(
            items("const a = 1, b = () => 2; export const c = make(() => 1);", false).unwrap().is_empty()
        );
    }

    #[test]
    fn a_class_comes_with_its_methods() {
        let text = "/** A stack. */\nexport abstract class Stack<T> extends Base<T> {\n  private items: T[] = [];\n\n  \
                    /** Adds. */\n  @logged\n  static async push(item: T): Promise<void> {\n    go();\n  }\n\n  \
                    // The size\n  // now.\n  get size(): number {\n    return 1;\n  }\n\n  on = () => {};\n  abstract off(): void;\n}";
        let found = items(text, false).unwrap();
        let names: Vec<&str> = found.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["Stack", "Stack.push", "Stack.size", "Stack.on"]);
        assert_eq!(
            (found[0].signature.as_str(), found[0].noun.as_str()),
            ("Stack<T> extends Base<T>", "abstract class")
        );
        assert_eq!(
            (found[1].noun.as_str(), found[1].comment.as_str()),
            ("static async method", "/** Adds. */")
        );
        assert_eq!(found[1].code, "@logged\nstatic async push(item: T): Promise<void> {\n  go();\n}");
        assert_eq!((found[2].noun.as_str(), found[2].comment.as_str()), ("getter", "// The size\n// now."));
    }

    #[test]
    fn overloads_stay_with_their_body_and_the_first_comment_speaks() {
        let text = "/** Data first. */\nexport function f(a: A, b: B): C;\n\n/** Data last. */\nexport function f(b: B): D;\n\n\
                    export function f(...args: any[]) {\n  return args;\n}";
        let item = only(text);
        assert_eq!(
            (item.comment.as_str(), item.signature.as_str()),
            ("/** Data first. */", "f(a: A, b: B): C")
        );
        assert_eq!(
            item.code,
            "function f(a: A, b: B): C;\nfunction f(b: B): D;\nfunction f(...args: any[]) {\n  return args;\n}"
        );
    }

    #[test]
    fn comments_of_others_are_not_taken() {
        assert_eq!(only("const a = 1; // one\nfunction f() {}").comment, "");
        assert_eq!(only("// Section\n\nfunction f() {}").comment, "");
    }

    #[test]
    fn namespaces_are_entered_and_errors_are_seen() {
        assert_eq!(only("export namespace A {\n  /** B. */\n  export function b() {}\n}").name, "b");
        assert!(only("function f( {\n  return 1;\n}").broken);
        let found =
            items("function a() { return 1; }\n) ] }}} {\nfunction b() { return 2; }", false).unwrap();
        let states: Vec<(&str, bool)> = found.iter().map(|i| (i.name.as_str(), i.broken)).collect();
        assert!(states.contains(&("a", false)) && states.contains(&("", true)), "{states:?}");
        assert_eq!(items("const View = () => { return <div/>; };", true).unwrap().len(), 1);
    }
}
