//! What an item needs from around it: the imports whose names it uses, and the file's other items that it calls.

use super::{File, Item, named_children};
use crate::curate::Kind;
use std::collections::HashMap;
use std::ops::Range;
use tree_sitter::Node;

/// Signatures that are told of an item.
const MOST: usize = 8;

/// The names that a file uses, in the order of the text.
#[derive(Default)]
struct Names<'a> {
    /// Where each identifier is.
    all: Vec<(usize, &'a str)>,
    /// Where each call is, the name called, and whether it is called on something.
    calls: Vec<(usize, &'a str, bool)>,
    /// Import statements: where each is, its text, and the names that it brings in; `*` for any.
    imports: Vec<(Range<usize>, &'a str, Vec<&'a str>)>,
}

impl<'a> File<'a> {
    /// Tells every item what it needs.
    pub(super) fn tell_uses(&mut self, root: Node) {
        let mut names = Names::default();
        self.collect(root, &mut names);
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, item) in self.items.iter().enumerate() {
            by_name.entry(own_name(item)).or_default().push(i);
        }
        let told: Vec<(Vec<String>, Vec<String>)> = (self.ranges.iter().enumerate())
            .map(|(i, range)| (names.imports_in(range), self.called(i, &names, &by_name)))
            .collect();
        for (item, (imports, uses)) in self.items.iter_mut().zip(told) {
            (item.imports, item.uses) = (imports, uses);
        }
    }

    fn collect(&self, node: Node, names: &mut Names<'a>) {
        if self.is_import(node) {
            let mut brought = Vec::new();
            self.brought(node, &mut brought);
            names.imports.push((node.byte_range(), self.slice(node).trim_end(), brought));
            return;
        }
        if self.table.calls.contains(&node.kind()) {
            let callee = ["function", "constructor", "name", "macro", "type"];
            let callee = callee.into_iter().find_map(|field| node.child_by_field_name(field));
            if let Some((name, member)) = callee.and_then(|callee| self.callee(callee)) {
                let member = member || node.child_by_field_name("object").is_some();
                names.calls.push((node.start_byte(), name, member));
            }
        }
        if is_identifier(node) {
            names.all.push((node.start_byte(), self.slice(node)));
        }
        named_children(node).for_each(|child| self.collect(child, names));
    }

    /// A statement that brings names in; JavaScript's older form is a constant.
    fn is_import(&self, node: Node) -> bool {
        self.table.imports.contains(&node.kind())
            || (self.table.holders.contains(&node.kind()) && self.slice(node).contains("= require("))
    }

    /// The names that an import makes known: not where they come from, and an alias instead of its name.
    fn brought(&self, node: Node, names: &mut Vec<&'a str>) {
        if let Some(alias) = node.child_by_field_name("alias") {
            return self.brought(alias, names);
        }
        match node.kind() {
            "asterisk" | "use_wildcard" | "wildcard_import" => names.push("*"),
            "dotted_name" => names.extend(node.named_child(0).map(|first| self.slice(first))),
            "preproc_include" => names.extend(node.child_by_field_name("path").map(|p| stem(self.slice(p)))),
            _ if is_identifier(node) => names.push(self.slice(node)),
            _ => {
                let from = ["path", "module_name", "scope", "source", "value"];
                let sources: Vec<Node> =
                    from.into_iter().filter_map(|f| node.child_by_field_name(f)).collect();
                let children = named_children(node).filter(|child| !sources.contains(child));
                children.for_each(|child| self.brought(child, names));
            }
        }
    }

    /// The last name of what is called, and whether it is reached through something else.
    fn callee(&self, callee: Node) -> Option<(&'a str, bool)> {
        if is_identifier(callee) {
            return Some((self.slice(callee), false));
        }
        let last = ["property", "attribute", "field", "name", "function", "type"];
        let last = last.into_iter().find_map(|field| callee.child_by_field_name(field))?;
        self.callee(last).map(|(name, _)| (name, true))
    }

    /// The signatures of other items that item `i` calls, in the order of their first use.
    fn called(&self, i: usize, names: &Names, by_name: &HashMap<&str, Vec<usize>>) -> Vec<String> {
        let (item, ranges) = (&self.items[i], &self.ranges);
        let mut found: Vec<usize> = Vec::new();
        for &(_, name, member) in within(&names.calls, &ranges[i], |call| call.0) {
            let fits = |&&other: &&usize| {
                let outside =
                    !ranges[i].contains(&ranges[other].start) && !ranges[other].contains(&ranges[i].start);
                let known = match self.items[other].kind {
                    Kind::Method => owner(&self.items[other]) == owner(item),
                    Kind::Function | Kind::Class => !member || self.items[other].kind == Kind::Class,
                };
                other != i && outside && known
            };
            found.extend(by_name.get(name).into_iter().flatten().find(fits));
        }
        let mut uses: Vec<String> = Vec::new();
        for signature in found.into_iter().map(|other| &self.items[other].signature) {
            if uses.len() < MOST && !uses.contains(signature) {
                uses.push(signature.clone());
            }
        }
        uses
    }
}

impl Names<'_> {
    /// The imports of which a name is used in a range, in the order of the file.
    fn imports_in(&self, range: &Range<usize>) -> Vec<String> {
        let used: Vec<&str> = within(&self.all, range, |name| name.0).iter().map(|name| name.1).collect();
        let needed = |brought: &[&str]| brought.iter().any(|name| *name == "*" || used.contains(name));
        let imports =
            self.imports.iter().filter(|(at, _, brought)| !range.contains(&at.start) && needed(brought));
        imports.map(|(_, text, _)| text.to_string()).collect()
    }
}

/// The part of a list, sorted by place, that is in a range.
fn within<'t, T>(list: &'t [T], range: &Range<usize>, place: impl Fn(&T) -> usize) -> &'t [T] {
    let start = list.partition_point(|one| place(one) < range.start);
    let end = list.partition_point(|one| place(one) < range.end);
    &list[start..end]
}

fn is_identifier(node: Node) -> bool {
    node.named_child_count() == 0 && node.kind().ends_with("identifier")
}

fn own_name(item: &Item) -> &str {
    item.name.rsplit('.').next().unwrap_or(&item.name)
}

/// The class of a method.
fn owner(item: &Item) -> Option<&str> {
    Some(item.name.split_once('.')?.0)
}

/// `vector` of `<vector>`, `stack` of `"lib/stack.h"`.
fn stem(path: &str) -> &str {
    let path = path.trim_matches(['<', '>', '"']);
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}
