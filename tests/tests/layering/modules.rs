//! The modules of a crate, read with `syn`: every path in a file is resolved through the module tree and its re-exports
//! to the file that defines the item. `pub use` of a module's own descendants is a facade, not a dependency. Code under
//! `#[cfg(test)]` is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// The modules of a crate by their paths, `[]` for the root.
#[derive(Default)]
pub struct Modules(BTreeMap<Vec<String>, Module>);

struct Module {
    file: PathBuf,
    /// Every path that the module names, in its own terms.
    uses: Vec<Vec<String>>,
    /// Names that the module passes on with `pub use`, and the paths that they stand for.
    exports: Vec<(String, Vec<String>)>,
    has_unsafe: bool,
}

impl Modules {
    pub fn read(roots: impl Iterator<Item = PathBuf>, src: &Path) -> Self {
        let mut modules = Modules::default();
        roots.for_each(|root| modules.add(Vec::new(), root, src.to_owned()));
        modules
    }

    /// Adds the module of `file`, whose children lie in `folder`.
    fn add(&mut self, path: Vec<String>, file: PathBuf, folder: PathBuf) {
        let mut names = Names::default();
        for item in parse(&file).items.iter().filter(|item| !is_test(item)) {
            match item {
                syn::Item::Mod(child) if child.content.is_none() => {
                    let name = child.ident.to_string();
                    let flat = folder.join(format!("{name}.rs"));
                    let nested = folder.join(&name);
                    let child = if flat.exists() { flat } else { nested.join("mod.rs") };
                    self.add([&path[..], &[name]].concat(), child, nested);
                }
                item => names.visit_item(item),
            }
        }
        let Names { uses, exports, has_unsafe } = names;
        self.0.insert(path, Module { file, uses, exports, has_unsafe });
    }

    /// The files that each file imports from.
    pub fn imports(&self) -> impl Iterator<Item = (&Path, Vec<&Path>)> {
        self.0.iter().map(|(path, module)| {
            let defining = module.uses.iter().filter_map(|name| self.defining(path, name, 0));
            (&*module.file, defining.map(|owner| &*self.0[&owner].file).collect())
        })
    }

    pub fn unsafe_files(&self) -> impl Iterator<Item = &Path> {
        self.0.values().filter(|module| module.has_unsafe).map(|module| &*module.file)
    }

    /// The module that defines what `name` means in module `from`; `None` for other crates' items.
    fn defining(&self, from: &[String], name: &[String], depth: usize) -> Option<Vec<String>> {
        assert!(depth < 32, "a re-export of itself: {name:?}");
        let (mut module, mut rest) = (from.to_vec(), name);
        let anchored = matches!(rest.first()?.as_str(), "crate" | "super" | "self");
        while let Some(word) = rest.first() {
            match word.as_str() {
                "crate" => module.clear(),
                "super" => drop(module.pop()),
                "self" => {}
                _ => break,
            }
            rest = &rest[1..];
        }
        if !anchored && !self.0.contains_key(&[&module[..], &rest[..1]].concat()) {
            return None;
        }
        while !rest.is_empty() {
            let child = [&module[..], &rest[..1]].concat();
            if !self.0.contains_key(&child) {
                break;
            }
            (module, rest) = (child, &rest[1..]);
        }
        // A re-exported name belongs to the module that it comes from.
        if let Some(word) = rest.first() {
            let exports = self.0[&module].exports.iter().filter(|(name, _)| name == word || name == "*");
            let mut owners = exports.filter_map(|(name, path)| match name.as_str() {
                "*" => self.defining(&module, &[&path[..], &rest[..1]].concat(), depth + 1),
                _ => self.defining(&module, path, depth + 1),
            });
            return owners.next().or(Some(module));
        }
        Some(module) // the module itself
    }
}

/// Collects the paths of a file.
#[derive(Default)]
struct Names {
    uses: Vec<Vec<String>>,
    exports: Vec<(String, Vec<String>)>,
    has_unsafe: bool,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let passed_on = !matches!(item.vis, syn::Visibility::Inherited);
        leaves(&item.tree, &mut Vec::new(), &mut |name, path| match passed_on {
            true => self.exports.push((name, path)),
            false => self.uses.push(path),
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if words.len() > 1 {
            self.uses.push(words);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.has_unsafe |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.has_unsafe |= signature.unsafety.is_some();
        visit::visit_signature(self, signature);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.has_unsafe = true;
        visit::visit_expr_unsafe(self, block);
    }

    /// The arguments of a macro that read as expressions.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let parser = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = call.parse_body_with(parser) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
        visit::visit_macro(self, call);
    }
}

/// Calls `f` with the name and the path of every leaf of a `use`.
fn leaves(tree: &syn::UseTree, path: &mut Vec<String>, f: &mut impl FnMut(String, Vec<String>)) {
    let of = |path: &[String], word: String| [path, &[word]].concat();
    match tree {
        syn::UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            leaves(&tree.tree, path, f);
            path.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path, f)),
        syn::UseTree::Name(name) if name.ident == "self" => {
            f(path.last().cloned().unwrap_or_default(), path.clone());
        }
        syn::UseTree::Name(name) => f(name.ident.to_string(), of(path, name.ident.to_string())),
        syn::UseTree::Rename(name) => f(name.rename.to_string(), of(path, name.ident.to_string())),
        syn::UseTree::Glob(_) => f("*".into(), path.clone()),
    }
}

fn is_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.meta.require_list().is_ok_and(|l| l.tokens.to_string() == "test")
    })
}

pub fn parse(file: &Path) -> syn::File {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}
