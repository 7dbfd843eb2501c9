//! Functions, methods and classes of a file, each with the comment that documents it.

mod head;
mod lead;
mod uses;

use super::Kind;
use super::language::{Language, Table};
use codelsi_engine::Result;
use lead::Lead;
use std::ops::Range;
use tree_sitter::Node;

/// A declaration with a body.
#[derive(Clone, Debug)]
pub struct Item {
    pub language: Language,
    pub kind: Kind,
    /// Of a method: `Class.method`.
    pub name: String,
    /// `name<T>(a: A): R` as the language has it, of a class its heading; on one line.
    pub signature: String,
    /// Words for what it is, as `async function` or `static method`.
    pub noun: String,
    /// The comment that documents it, or else its last run of line comments. May be empty.
    pub comment: String,
    /// Overloads and body, free of `export`, of indentation and of its docstring: an answer is a program, not a part
    /// of a module.
    pub code: String,
    /// The parser found an error in it.
    pub broken: bool,
    /// Characters of the code that are comments.
    pub commented: usize,
    /// First and last line of the code in its file, counted from 1.
    pub lines: (usize, usize),
    /// Import statements whose names it uses, in the order of the file.
    pub imports: Vec<String>,
    /// Signatures of the file's own other items that it calls, in the order of first use, eight at most.
    pub uses: Vec<String>,
}

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

struct File<'a> {
    text: &'a str,
    language: Language,
    table: &'static Table,
    items: Vec<Item>,
    /// Where in the text each item's code is.
    ranges: Vec<Range<usize>>,
}

/// A declaration in its place: the statement around all of it, what the code keeps of that, and itself.
#[derive(Clone, Copy)]
struct Place<'t> {
    statement: Node<'t>,
    kept: Node<'t>,
    declaration: Node<'t>,
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

    /// What a statement declares, out of `export`, decorators and templates.
    fn unwrapped<'t>(&self, statement: Node<'t>) -> Option<Place<'t>> {
        let mut place = Place { statement, kept: statement, declaration: statement };
        let mut inside_kept = false;
        while let Some(wrapper) = self.table.wrappers.iter().find(|w| w.kind == place.declaration.kind()) {
            place.declaration = match wrapper.field {
                "" => named_children(place.declaration).last(),
                field => place.declaration.child_by_field_name(field),
            }?;
            inside_kept |= wrapper.kept;
            if !inside_kept {
                place.kept = place.declaration;
            }
        }
        Some(place)
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

    /// The string that heads a Python body.
    fn docstring<'t>(&self, declaration: Node<'t>) -> Option<Node<'t>> {
        let body = declaration.child_by_field_name("body").filter(|body| body.kind() == "block")?;
        let first = named_children(body).find(|n| !self.is_comment(*n))?;
        let string = first.named_child(0).filter(|_| first.kind() == "expression_statement")?;
        (string.kind() == "string" && first.named_child_count() == 1).then_some(string)
    }

    /// Characters of comments and docstrings below a node.
    fn comment_chars(&self, node: Node) -> usize {
        let documents = |n: &Node| self.docstring(*n).map_or(0, |string| self.slice(string).chars().count());
        match self.is_comment(node) {
            true => self.slice(node).chars().count(),
            false => documents(&node) + named_children(node).map(|n| self.comment_chars(n)).sum::<usize>(),
        }
    }

    fn is_comment(&self, node: Node) -> bool {
        self.table.comments.contains(&node.kind())
    }

    fn slice(&self, node: Node) -> &'a str {
        &self.text[node.byte_range()]
    }

    fn field(&self, node: Node, name: &str) -> Option<&'a str> {
        node.child_by_field_name(name).map(|n| self.slice(n))
    }

    /// The node's text, its later lines moved left by as much as its first line was indented.
    fn dedented(&self, node: Node) -> String {
        self.moved_left(node, self.slice(node))
    }

    /// The same without the lines of a docstring; a body that is nothing else becomes `...`.
    fn without(&self, node: Node, docstring: Node) -> String {
        let (start, end) = (docstring.start_byte(), docstring.end_byte());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest =
            self.text[end..node.end_byte()].split_once('\n').filter(|(line, _)| line.trim().is_empty());
        let before = &self.text[node.start_byte()..start];
        let code = match rest.filter(|_| self.text[line_start..start].trim().is_empty()) {
            Some((_, rest)) => format!("{}{rest}", &self.text[node.start_byte()..line_start]),
            None => format!("{before}...{}", &self.text[end..node.end_byte()]),
        };
        self.moved_left(node, &code)
    }

    fn moved_left(&self, node: Node, code: &str) -> String {
        let line_start = self.text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        let line = &self.text[line_start..];
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let lines = code.lines().map(|l| l.strip_prefix(indent).unwrap_or(l));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn named_children<'t>(node: Node<'t>) -> impl DoubleEndedIterator<Item = Node<'t>> {
    (0..node.named_child_count()).filter_map(move |i| node.named_child(i))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod languages;
