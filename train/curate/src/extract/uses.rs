//! The parts of its file that an item uses: imports, and the signatures of the other items that it calls.

use super::file::ParsedFile;
use super::item::Item;
use crate::language::{named_children, walk};
use crate::row::ItemKind;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tree_sitter::Node;

/// Maximum number of signatures per item.
const MAX_USES: usize = 8;
/// Maximum nodes between a call and the name that it calls.
const MAX_CALLEE: usize = 32;

/// The identifiers, calls and imports of a file, in the order of the text.
#[derive(Default)]
struct NameUses<'a> {
    /// Each identifier with its position.
    all: Vec<(usize, &'a str)>,
    /// Each call: its position, the called name, and whether it is called on an object.
    calls: Vec<(usize, &'a str, bool)>,
    /// Each import statement: its range, its text, and the imported names (`*` for any).
    imports: Vec<(Range<usize>, &'a str, Vec<&'a str>)>,
}

impl<'a> ParsedFile<'a> {
    /// Fills in `imports` and `uses` of every item.
    pub(super) fn collect_uses(&mut self, root: Node) {
        let mut names = NameUses::default();
        walk(root, |node, _| self.collect(node, &mut names));
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, item) in self.items.iter().enumerate() {
            by_name.entry(own_name(item)).or_default().push(i);
        }
        let uses: Vec<(Vec<String>, Vec<String>)> = (self.items.iter().enumerate())
            .map(|(i, item)| (names.imports_in(&item.bytes), self.called(i, &names, &by_name)))
            .collect();
        for (item, (imports, uses)) in self.items.iter_mut().zip(uses) {
            (item.imports, item.uses) = (imports, uses);
        }
    }

    /// Collects the name, call or import that a node is; returns whether there are more below it.
    fn collect(&self, node: Node, names: &mut NameUses<'a>) -> bool {
        if self.is_import(node) {
            names.imports.push((node.byte_range(), self.slice(node).trim_end(), self.imported_names(node)));
            return false;
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
        true
    }

    /// Returns whether a node is an import; CommonJS imports are constants.
    fn is_import(&self, node: Node) -> bool {
        self.table.imports.contains(&node.kind())
            || (self.table.holders.contains(&node.kind()) && self.slice(node).contains("= require("))
    }

    /// The imported names: aliases instead of the names they replace, without module paths.
    fn imported_names(&self, import: Node) -> Vec<&'a str> {
        let mut names = Vec::new();
        let mut open = vec![import];
        while let Some(node) = open.pop() {
            if let Some(alias) = node.child_by_field_name("alias") {
                open.push(alias);
                continue;
            }
            match node.kind() {
                "asterisk" | "use_wildcard" | "wildcard_import" => names.push("*"),
                "dotted_name" => names.extend(node.named_child(0).map(|first| self.slice(first))),
                "preproc_include" => {
                    names.extend(node.child_by_field_name("path").map(|path| stem(self.slice(path))))
                }
                _ if is_identifier(node) => names.push(self.slice(node)),
                _ => {
                    let from = ["path", "module_name", "scope", "source", "value"];
                    let sources: Vec<Node> =
                        from.into_iter().filter_map(|field| node.child_by_field_name(field)).collect();
                    open.extend(named_children(node).filter(|child| !sources.contains(child)));
                }
            }
        }
        names
    }

    /// The called name, and whether it is a member of an object or module. `f()()…` with more calls than
    /// [`MAX_CALLEE`] has none.
    fn callee(&self, callee: Node) -> Option<(&'a str, bool)> {
        let mut inner = callee;
        for _ in 0..MAX_CALLEE {
            if is_identifier(inner) {
                return Some((self.slice(inner), inner != callee));
            }
            let last = ["property", "attribute", "field", "name", "function", "type"];
            inner = last.into_iter().find_map(|field| inner.child_by_field_name(field))?;
        }
        None
    }

    /// The signatures of the other items that item `i` calls, in the order of first use.
    fn called(&self, i: usize, names: &NameUses, by_name: &HashMap<&str, Vec<usize>>) -> Vec<String> {
        let item = &self.items[i];
        let mut found: Vec<usize> = Vec::new();
        let mut seen = HashSet::new();
        for &(_, name, member) in within(&names.calls, &item.bytes, |call| call.0) {
            if !seen.insert((name, member)) {
                continue;
            }
            let fits = |&&other: &&usize| {
                let callee = &self.items[other];
                let outside =
                    !item.bytes.contains(&callee.bytes.start) && !callee.bytes.contains(&item.bytes.start);
                let known = match callee.kind {
                    ItemKind::Method => owner(callee) == owner(item),
                    ItemKind::Function | ItemKind::Class => !member || callee.kind == ItemKind::Class,
                };
                other != i && outside && known
            };
            found.extend(by_name.get(name).into_iter().flatten().find(fits));
        }
        let mut uses: Vec<String> = Vec::new();
        for signature in found.into_iter().map(|other| &self.items[other].signature) {
            if uses.len() < MAX_USES && !uses.contains(signature) {
                uses.push(signature.clone());
            }
        }
        uses
    }
}

impl NameUses<'_> {
    /// The imports with a name that is used in a range, in the order of the file.
    fn imports_in(&self, range: &Range<usize>) -> Vec<String> {
        let used: HashSet<&str> = within(&self.all, range, |name| name.0).iter().map(|name| name.1).collect();
        let needed = |brought: &[&str]| brought.iter().any(|name| *name == "*" || used.contains(name));
        let imports =
            self.imports.iter().filter(|(at, _, brought)| !range.contains(&at.start) && needed(brought));
        imports.map(|(_, text, _)| text.to_string()).collect()
    }
}

/// The part of a list sorted by position that lies in a range.
fn within<'t, T>(list: &'t [T], range: &Range<usize>, position: impl Fn(&T) -> usize) -> &'t [T] {
    let start = list.partition_point(|one| position(one) < range.start);
    let end = list.partition_point(|one| position(one) < range.end);
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

#[cfg(test)]
mod tests {
    use crate::extract::extract_items;
    use crate::language::Language;

    #[test]
    fn items_know_their_lines_imports_and_callees() {
        let files = [
            (
                Language::TypeScript,
                "import { a as one, type B } from './a';\nimport * as fs from 'fs';\nimport unused from 'u';\n\nfunction help(x: B) {\n  return one(x);\n}\n\n\
                 export class Stack {\n  push(x: B): B {\n    return this.grow(help(x)) ?? new Other(fs);\n  }\n  grow(x: B) { return x; }\n}\nclass Other {}\n",
                "Stack.push",
                (10, 12),
                vec!["import { a as one, type B } from './a';", "import * as fs from 'fs';"],
                vec!["grow(x: B)", "help(x: B)", "Other"],
            ),
            (
                Language::JavaScript,
                "const fs = require('fs');\nconst { join } = require('path');\n\nfunction read(p) { return fs.read(p); }\nfunction two(p) {\n  return read(read(p));\n}\n",
                "read",
                (4, 4),
                vec!["const fs = require('fs');"],
                vec![],
            ),
            (
                Language::Python,
                "import os.path\nfrom typing import List, Dict as D\nfrom a import *\nimport b as os2\n\ndef help(): pass\n\n@deco\ndef run(x: List[int]) -> D:\n    help()\n    return os.path.join(Thing(x).run())\n\n\
                 class Thing:\n    def run(self):\n        return self.stop()\n\n    def stop(self): pass\n",
                "run",
                (8, 11),
                vec!["import os.path", "from typing import List, Dict as D", "from a import *"],
                vec!["help()", "Thing"],
            ),
            (
                Language::Java,
                "import java.util.List;\nimport java.util.Map;\nimport static a.B.*;\n\nclass A {\n  int run(List<Integer> xs) {\n    return help(xs.size()) + new P(1).x();\n  }\n  int help(int n) { return n; }\n}\nrecord P(int x) {}\n",
                "A.run",
                (6, 8),
                vec!["import java.util.List;", "import static a.B.*;"],
                vec!["int help(int n)", "P(int x)"],
            ),
            (
                Language::Cpp,
                "#include <vector>\n#include <map>\n#include \"lib/stack.h\"\n\nint help(int n) { return n; }\n\nint run(std::vector<int> xs) {\n  stack s;\n  return help(xs.size()) + ns::help(1);\n}\n",
                "run",
                (7, 10),
                vec!["#include <vector>", "#include \"lib/stack.h\""],
                vec!["int help(int n)"],
            ),
            (
                Language::Rust,
                "use std::collections::{HashMap, HashSet as Set};\nuse std::fmt;\nuse super::*;\n\nfn help(n: usize) -> usize { n }\n\nstruct A { x: u8 }\n\nimpl A {\n    #[inline]\n    fn run(&self, xs: Set<u8>) -> usize {\n        self.stop();\n        help(xs.len())\n    }\n\n    fn stop(&self) {}\n}\n",
                "A.run",
                (10, 14),
                vec!["use std::collections::{HashMap, HashSet as Set};", "use super::*;"],
                vec!["stop(&self)", "help(n: usize) -> usize"],
            ),
        ];
        for (language, text, name, lines, imports, uses) in files {
            let items = extract_items(text, language, "").unwrap();
            let item = items.iter().find(|item| item.name == name).expect("an item of this name");
            assert_eq!(
                (item.lines, &item.imports, &item.uses),
                (
                    lines,
                    &imports.iter().map(|i| i.to_string()).collect(),
                    &uses.iter().map(|u| u.to_string()).collect()
                ),
                "{language:?}"
            );
        }
    }

    #[test]
    fn eight_signatures_are_enough_and_each_is_told_once() {
        let helpers: String = (0..10).map(|i| format!("function help{i}() {{}}\n")).collect();
        let calls: String = (0..10).rev().map(|i| format!("  help{i}(); help{i}(); all();\n")).collect();
        let text = format!("{helpers}function all() {{\n{calls}}}\n");
        let found = extract_items(&text, Language::TypeScript, "").unwrap();
        let expected: Vec<String> = (2..10).rev().map(|i| format!("help{i}()")).collect();
        assert_eq!(found.last().unwrap().uses, expected);
    }
}
