//! Extraction of the functions, methods and classes of a file, with the comment that documents each.

mod file;
mod head;
mod item;
mod lead;
mod uses;

pub use item::Item;

use crate::language::{Language, MAX_DEPTH, MAX_SCOPES, Unparsed, named_children};
use crate::row::ItemKind;
use file::{DeclarationNodes, ParsedFile};
use lead::LeadingNodes;
use tree_sitter::Node;

/// Parses a file and returns its items in the order of the text. `path` selects the grammar (`.tsx`).
///
/// Nested functions are part of the outer item; a class comes before its methods.
///
/// # Errors
/// When the file is too large, or the parser takes too long.
pub fn extract_items(text: &str, language: Language, path: &str) -> Result<Vec<Item>, Unparsed> {
    let tree = language.parse(text, path)?;
    let mut file = ParsedFile { text, language, table: language.table(), items: Vec::new() };
    file.scope(tree.root_node(), None, 0);
    file.collect_uses(tree.root_node());
    Ok(file.items)
}

/// The heading of an item.
struct ItemHeading {
    kind: ItemKind,
    name: String,
    signature: String,
    noun: String,
}

impl<'a> ParsedFile<'a> {
    /// Visits the statements of a file or namespace, or the members of the class `owner`; `depth` is the number of scopes
    /// around it.
    fn scope(&mut self, scope: Node, owner: Option<&str>, depth: usize) {
        if scope.is_error() || depth > MAX_SCOPES {
            // One item represents all text that the parser could not read, or that is too deep.
            let title = ItemHeading {
                kind: ItemKind::Function,
                name: String::new(),
                signature: String::new(),
                noun: String::new(),
            };
            let nodes = DeclarationNodes { statement: scope, kept: scope, declaration: scope };
            self.push(title, LeadingNodes::default(), nodes).too_deep |= depth > MAX_SCOPES;
        }
        if depth > MAX_SCOPES {
            return;
        }
        for statement in named_children(scope) {
            if let Some(nodes) = self.unwrapped(statement) {
                self.declaration(nodes, owner, depth);
            }
        }
    }

    fn declaration(&mut self, nodes: DeclarationNodes, owner: Option<&str>, depth: usize) {
        let (node, kind, table) = (nodes.declaration, nodes.declaration.kind(), self.table);
        let functions = if owner.is_some() { table.methods } else { table.functions };
        if functions.contains(&kind) {
            self.function(nodes, owner);
        } else if table.holders.contains(&kind) {
            self.function_constant(nodes, owner);
        } else if let Some((_, noun)) = table.classes.iter().find(|(class, _)| *class == kind) {
            self.class(nodes, noun, depth);
        } else if table.owners.contains(&kind) {
            let of = node.child_by_field_name("type");
            let of = of.map(|of| self.field(of, "type").unwrap_or(self.slice(of)));
            node.child_by_field_name("body").into_iter().for_each(|body| self.scope(body, of, depth + 1));
        } else if table.containers.contains(&kind) {
            self.scope(node.child_by_field_name("body").unwrap_or(node), owner, depth + 1);
        } else if node.is_error() && owner.is_none() {
            self.scope(node, None, depth + 1);
        }
    }

    fn function(&mut self, nodes: DeclarationNodes, owner: Option<&str>) {
        let node = nodes.declaration;
        let Some((owner, name)) = self.names(node, owner) else {
            return;
        };
        if node.child_by_field_name("body").is_none() && !node.has_error() {
            return;
        }
        let lead = LeadingNodes::of(self, nodes, name);
        let head = DeclarationNodes { declaration: lead.overloads.first().copied().unwrap_or(node), ..nodes };
        let title = self.title(owner, name, self.signature(name, head), nodes);
        self.push(title, lead, nodes);
    }

    /// Visits `const f = (…) => …` or `= function …` with one declarator, or a field whose value is a function.
    fn function_constant(&mut self, nodes: DeclarationNodes, owner: Option<&str>) {
        let node = nodes.declaration;
        let declarators: Vec<Node> = match owner {
            Some(_) => vec![node],
            None => named_children(node).filter(|n| n.kind() == "variable_declarator").collect(),
        };
        let [declarator] = declarators[..] else {
            return;
        };
        let value = declarator.child_by_field_name("value");
        let (Some((_, name)), Some(value)) =
            (self.names(declarator, None), value.filter(|v| self.table.lambdas.contains(&v.kind())))
        else {
            return;
        };
        let lead = LeadingNodes::of(self, nodes, name);
        let head =
            DeclarationNodes { declaration: lead.overloads.first().copied().unwrap_or(value), ..nodes };
        let signature = match declarator.child_by_field_name("type").filter(|_| owner.is_none()) {
            Some(kind) => head::one_line(&format!("{name}{}", self.slice(kind))),
            None => self.signature(name, head),
        };
        // The keywords of a field are before its name, those of a constant before its value.
        let keywords = if owner.is_some() { node } else { value };
        let title = self.title(owner, name, signature, DeclarationNodes { declaration: keywords, ..nodes });
        self.push(title, lead, nodes);
    }

    fn class(&mut self, nodes: DeclarationNodes, noun: &str, depth: usize) {
        let node = nodes.declaration;
        let (Some(name), Some(body)) = (node.child_by_field_name("name"), node.child_by_field_name("body"))
        else {
            return;
        };
        let title = ItemHeading {
            kind: ItemKind::Class,
            name: self.slice(name).to_string(),
            signature: head::one_line(&self.text[name.start_byte()..body.start_byte()])
                .trim_end_matches(':')
                .to_string(),
            noun: self.noun(nodes, noun),
        };
        let lead = LeadingNodes::of(self, nodes, self.slice(name));
        self.push(title, lead, nodes);
        self.scope(body, Some(self.slice(name)), depth + 1);
    }

    fn title(
        &self,
        owner: Option<&str>,
        name: &str,
        signature: String,
        nodes: DeclarationNodes,
    ) -> ItemHeading {
        let noun = match owner {
            Some(class) if name == "constructor" || name == class => "constructor".to_string(),
            Some(_) => self.noun(nodes, "method"),
            None => self.noun(nodes, "function"),
        };
        match owner {
            Some(class) => {
                ItemHeading { kind: ItemKind::Method, name: format!("{class}.{name}"), signature, noun }
            }
            None => ItemHeading { kind: ItemKind::Function, name: name.to_string(), signature, noun },
        }
    }

    /// The class of a function, if it is a method (the surrounding class, or that of `Class::name`), and its own name.
    fn names<'o>(&self, node: Node, owner: Option<&'o str>) -> Option<(Option<&'o str>, &'a str)>
    where
        'a: 'o,
    {
        if let Some(name) = ["name", "property"].into_iter().find_map(|field| self.field(node, field)) {
            return Some((owner, name));
        }
        let mut declarator = node.child_by_field_name("declarator")?;
        while !matches!(declarator.kind(), "function_declarator") {
            // A reference has its declarator in no field.
            let inner = declarator.child_by_field_name("declarator");
            declarator = inner.or_else(|| named_children(declarator).last())?;
        }
        let mut own = declarator.child_by_field_name("declarator")?;
        let mut owner = owner;
        while own.kind() == "qualified_identifier" {
            let scope = own.child_by_field_name("scope");
            owner = scope.map(|scope| self.field(scope, "name").unwrap_or(self.slice(scope)));
            own = own.child_by_field_name("name")?;
        }
        Some((owner, self.slice(own)))
    }

    fn push(&mut self, title: ItemHeading, lead: LeadingNodes, nodes: DeclarationNodes) -> &mut Item {
        let before = lead.decorators.iter().chain(&lead.overloads);
        let broken = before.clone().chain([&nodes.kept]).any(|part| part.has_error());
        let before_start = before.clone().next().copied();
        let mut parts: Vec<String> = before.map(|part| self.dedented(*part)).collect();
        let docstring = self.docstring(nodes.declaration);
        parts.push(match docstring {
            Some(docstring) => self.without(nodes.kept, docstring),
            None => self.dedented(nodes.kept),
        });
        let mut code = parts.join("\n");
        if title.kind == ItemKind::Class && nodes.declaration.next_sibling().is_some_and(|n| n.kind() == ";")
        {
            code = code.trim_end_matches(';').to_string() + ";";
        }
        let comment = match docstring {
            Some(docstring) => self.slice(docstring).to_string(),
            None => lead.comment(self),
        };
        let first = before_start.unwrap_or(nodes.kept);
        let own = docstring.map(|string| self.slice(string).chars().count()).unwrap_or(0);
        let (comment_chars, depth) = self.measure(nodes.kept);
        let bytes = first.start_byte()..nodes.kept.end_byte();
        let lines = (first.start_position().row + 1, nodes.kept.end_position().row + 1);
        let ItemHeading { kind, name, signature, noun } = title;
        let language = self.language;
        let (imports, uses) = (Vec::new(), Vec::new());
        let item = Item {
            language,
            kind,
            name,
            signature,
            noun,
            comment,
            code,
            broken,
            too_deep: depth > MAX_DEPTH,
            commented: comment_chars - own,
            lines,
            bytes,
            imports,
            uses,
        };
        self.items.push(item);
        self.items.last_mut().expect("pushed above")
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod languages;
