//! Functions, methods and classes of a file, each with the comment that documents it.

mod file;
mod head;
mod item;
mod lead;
mod uses;

pub use item::Item;

use crate::language::Language;
use crate::row::Kind;
use codelsi_engine::Result;
use file::{File, Place, named_children};
use lead::Lead;
use tree_sitter::Node;

/// Parses one file and returns its items in the order of the text. The path selects the grammar (`.tsx`).
///
/// Nested functions belong to the item around them; a class comes before its methods.
pub fn items(text: &str, language: Language, path: &str) -> Result<Vec<Item>> {
    let tree = language.parse(text, path)?;
    let mut file = File { text, language, table: language.table(), items: Vec::new(), ranges: Vec::new() };
    file.scope(tree.root_node(), None);
    file.tell_uses(tree.root_node());
    Ok(file.items)
}

/// What names an item.
struct Title {
    kind: Kind,
    name: String,
    signature: String,
    noun: String,
}

impl<'a> File<'a> {
    /// Statements of a file or of a namespace, or the members of the class `owner`.
    fn scope(&mut self, scope: Node, owner: Option<&str>) {
        if scope.is_error() {
            // One broken item for the text around those that the parser could still read.
            let title = Title {
                kind: Kind::Function,
                name: String::new(),
                signature: String::new(),
                noun: String::new(),
            };
            self.push(title, Lead::default(), Place { statement: scope, kept: scope, declaration: scope });
        }
        for statement in named_children(scope) {
            if let Some(place) = self.unwrapped(statement) {
                self.declaration(place, owner);
            }
        }
    }

    fn declaration(&mut self, place: Place, owner: Option<&str>) {
        let (node, kind, table) = (place.declaration, place.declaration.kind(), self.table);
        let functions = if owner.is_some() { table.methods } else { table.functions };
        if functions.contains(&kind) {
            self.function(place, owner);
        } else if table.holders.contains(&kind) {
            self.holder(place, owner);
        } else if let Some((_, noun)) = table.classes.iter().find(|(class, _)| *class == kind) {
            self.class(place, noun);
        } else if table.owners.contains(&kind) {
            let of = node.child_by_field_name("type");
            let of = of.map(|of| self.field(of, "type").unwrap_or(self.slice(of)));
            node.child_by_field_name("body").into_iter().for_each(|body| self.scope(body, of));
        } else if table.containers.contains(&kind) {
            self.scope(node.child_by_field_name("body").unwrap_or(node), owner);
        } else if node.is_error() && owner.is_none() {
            self.scope(node, None);
        }
    }

    fn function(&mut self, place: Place, owner: Option<&str>) {
        let node = place.declaration;
        let Some((owner, name)) = self.names(node, owner) else {
            return;
        };
        if node.child_by_field_name("body").is_none() && !node.has_error() {
            return;
        }
        let lead = Lead::of(self, place, name);
        let head = Place { declaration: lead.overloads.first().copied().unwrap_or(node), ..place };
        let title = self.title(owner, name, self.signature(name, head), place);
        self.push(title, lead, place);
    }

    /// `const f = (…) => …` or `= function …`, alone in its statement; or a field that holds one.
    fn holder(&mut self, place: Place, owner: Option<&str>) {
        let node = place.declaration;
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
        let lead = Lead::of(self, place, name);
        let head = Place { declaration: lead.overloads.first().copied().unwrap_or(value), ..place };
        let signature = match declarator.child_by_field_name("type").filter(|_| owner.is_none()) {
            Some(kind) => head::one_line(&format!("{name}{}", self.slice(kind))),
            None => self.signature(name, head),
        };
        // A field's own keywords are before its name, a constant's before its value.
        let worded = if owner.is_some() { node } else { value };
        let title = self.title(owner, name, signature, Place { declaration: worded, ..place });
        self.push(title, lead, place);
    }

    fn class(&mut self, place: Place, noun: &str) {
        let node = place.declaration;
        let (Some(name), Some(body)) = (node.child_by_field_name("name"), node.child_by_field_name("body"))
        else {
            return;
        };
        let title = Title {
            kind: Kind::Class,
            name: self.slice(name).to_string(),
            signature: head::one_line(&self.text[name.start_byte()..body.start_byte()])
                .trim_end_matches(':')
                .to_string(),
            noun: self.noun(place, noun),
        };
        let lead = Lead::of(self, place, self.slice(name));
        self.push(title, lead, place);
        self.scope(body, Some(self.slice(name)));
    }

    fn title(&self, owner: Option<&str>, name: &str, signature: String, place: Place) -> Title {
        let noun = match owner {
            Some(class) if name == "constructor" || name == class => "constructor".to_string(),
            Some(_) => self.noun(place, "method"),
            None => self.noun(place, "function"),
        };
        match owner {
            Some(class) => Title { kind: Kind::Method, name: format!("{class}.{name}"), signature, noun },
            None => Title { kind: Kind::Function, name: name.to_string(), signature, noun },
        }
    }

    /// A function's own name, and the class it is a method of: the one around it, or that of `Class::name`.
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

    fn push(&mut self, title: Title, lead: Lead, place: Place) {
        let before = lead.decorators.iter().chain(&lead.overloads);
        let broken = before.clone().chain([&place.kept]).any(|part| part.has_error());
        let before_start = before.clone().next().copied();
        let mut parts: Vec<String> = before.map(|part| self.dedented(*part)).collect();
        let docstring = self.docstring(place.declaration);
        parts.push(match docstring {
            Some(docstring) => self.without(place.kept, docstring),
            None => self.dedented(place.kept),
        });
        let mut code = parts.join("\n");
        if title.kind == Kind::Class && place.declaration.next_sibling().is_some_and(|n| n.kind() == ";") {
            code = code.trim_end_matches(';').to_string() + ";";
        }
        let comment = match docstring {
            Some(docstring) => self.slice(docstring).to_string(),
            None => lead.comment(self),
        };
        let first = before_start.unwrap_or(place.kept);
        let own = docstring.map(|string| self.slice(string).chars().count()).unwrap_or(0);
        let commented = self.comment_chars(place.kept) - own;
        self.ranges.push(first.start_byte()..place.kept.end_byte());
        let lines = (first.start_position().row + 1, place.kept.end_position().row + 1);
        let Title { kind, name, signature, noun } = title;
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
            commented,
            lines,
            imports,
            uses,
        };
        self.items.push(item);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod languages;
