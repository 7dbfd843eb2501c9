//! Layers: no crate depends on one above it or beside it, and inside of a crate files import each other in no circle but
//! those that are listed here, each with its reason.
//!
//! Module imports are read with `syn`: every path in a file is resolved through the module tree and its re-exports to
//! the file that defines the item. `pub use` of a module's own descendants is a facade, not a dependency. Code under
//! `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use syn::visit::{self, Visit};

/// Crates from the ground up; a crate may depend on those of earlier lines only.
const LAYERS: &[&[&str]] = &[
    &["codelsi-emulator", "codelsi-testing"],
    &["codelsi-engine"],
    &["codelsi-kernels"],
    &["codelsi-model"],
    &["codelsi-curate", "codelsi-train", "codelsi-eval"],
    &["codelsi-launch", "codelsi-demo"],
    &["codelsi-experiment"],
    &["codelsi-kernelcheck", "codelsi-parity"],
    &["codelsi-tools"],
    &["codelsi-tests", "codelsi-benches"],
];

/// Files and folders of a crate that import each other.
struct Circle {
    package: &'static str,
    members: &'static [&'static str],
    reason: &'static str,
}

/// All circles of the workspace. A file that joins one, or a new one, fails; so does an entry that has come apart.
const CIRCLES: &[Circle] = &[
    Circle {
        package: "codelsi-emulator",
        members: &[
            "control_flow.rs",
            "decode/builder.rs",
            "decode/mod.rs",
            "decode/register_allocation.rs",
            "decode/scopes.rs",
            "module.rs",
        ],
        reason: "a module holds the decoded form of its kernels, and decoding reads the module's symbols",
    },
    Circle {
        package: "codelsi-emulator",
        members: &[
            "exec/access_pattern.rs",
            "exec/address.rs",
            "exec/barrier.rs",
            "exec/copy.rs",
            "exec/global_shadow.rs",
            "exec/grid_races.rs",
            "exec/launch.rs",
            "exec/shared_memory.rs",
            "exec/thread_block.rs",
            "exec/vector_clock.rs",
            "exec/warp.rs",
        ],
        reason: "a block owns its warps and its memory, and an instruction of a warp works on its block",
    },
    Circle {
        package: "codelsi-engine",
        members: &["comm/mod.rs", "ctx.rs", "cuda/", "device.rs", "tape/", "tensor.rs"],
        reason: "an Op takes a Ctx, which holds the tape of Ops and the Comm; a deferred Tensor holds its Refetch; a Device, \
                 of CUDA or not, makes Tensors",
    },
];

/// Folders that count as one file: an op's (its files are one declaration), and the engine's CUDA seam and tape.
fn is_one_room(package: &Package, folder: &str) -> bool {
    match package.name.as_str() {
        "codelsi-kernels" => package.src().join(folder).join("spec.rs").exists(),
        "codelsi-engine" => matches!(folder, "cuda" | "tape"),
        _ => false,
    }
}

/// For each name, the names that it imports from or depends on.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// A workspace package, with the names of the packages that it depends on.
struct Package {
    name: String,
    folder: PathBuf,
    dependencies: Vec<String>,
}

impl Package {
    fn src(&self) -> PathBuf {
        self.folder.join("src")
    }

    /// The root files of its library and its binary.
    fn roots(&self) -> impl Iterator<Item = PathBuf> {
        ["lib.rs", "main.rs"].map(|name| self.src().join(name)).into_iter().filter(|root| root.exists())
    }

    /// Returns the file's name within `src`, or that of the room it is in: `cuda/` for `cuda.rs` and all in `cuda`.
    fn room(&self, file: &Path) -> String {
        let name = file.strip_prefix(self.src()).unwrap().to_str().unwrap();
        let folder = name.split('/').next().unwrap().trim_end_matches(".rs");
        if is_one_room(self, folder) { format!("{folder}/") } else { name.to_owned() }
    }

    /// The rooms that each room imports from.
    fn imports(&self) -> Graph {
        let mut imports = Graph::new();
        for (file, imported) in Modules::read(self.roots(), &self.src()).imports() {
            let room = self.room(file);
            let others = imported.into_iter().map(|file| self.room(file)).filter(|other| *other != room);
            imports.entry(room.clone()).or_default().extend(others);
        }
        imports
    }
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let package = |p: &serde_json::Value| Package {
        name: text(&p["name"]),
        folder: PathBuf::from(text(&p["manifest_path"])).parent().expect("a folder").to_owned(),
        dependencies: (p["dependencies"].as_array().unwrap().iter())
            .filter(|d| d["kind"].is_null())
            .map(|d| text(&d["name"]))
            .collect(),
    };
    metadata["packages"].as_array().expect("packages").iter().map(package).collect()
}

#[test]
fn no_crate_depends_on_a_layer_above_it_or_beside_it() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    for package in packages() {
        let own =
            layer(&package.name).unwrap_or_else(|| panic!("{}: give it a line in LAYERS", package.name));
        for dependency in package.dependencies.iter().filter(|name| name.starts_with("codelsi-")) {
            let below = layer(dependency).is_some_and(|layer| layer < own);
            assert!(below, "{} depends on {dependency}, which is no layer below it", package.name);
        }
    }
}

#[test]
fn dependencies_stay_where_they_belong() {
    let packages = packages();
    let graph: Graph =
        packages.iter().map(|p| (p.name.clone(), p.dependencies.iter().cloned().collect())).collect();
    for (package, dependency) in [
        ("codelsi-launch", "clap"),
        ("codelsi-demo", "clap"),
        ("codelsi-experiment", "clap"),
        ("codelsi-train", "tree-sitter"),
        ("codelsi-kernelcheck", "tokenizers"),
    ] {
        assert!(!reached(&graph, package).contains(dependency), "{package} depends on {dependency}");
    }
    let users = graph.iter().filter(|(_, dependencies)| dependencies.contains("ureq"));
    let users: Vec<&str> = users.map(|(package, _)| package.as_str()).collect();
    assert_eq!(users, ["codelsi-experiment"], "one crate uses the network");
}

#[test]
fn tools_and_training_forbid_unsafe_code() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let safe = ["tools", "train"].map(|folder| workspace.join(folder));
    let packages = packages();
    let roots: Vec<PathBuf> = (packages.iter())
        .filter(|package| safe.iter().any(|folder| package.folder.starts_with(folder)))
        .flat_map(Package::roots)
        .collect();
    assert!(roots.len() >= 8, "{roots:?}");
    for root in roots {
        let forbids = |a: &syn::Attribute| {
            a.path().is_ident("forbid")
                && a.parse_args::<syn::Ident>().is_ok_and(|lint| lint == "unsafe_code")
        };
        assert!(
            parse(&root).attrs.iter().any(forbids),
            "{}: #![forbid(unsafe_code)] is missing",
            root.display()
        );
    }
}

#[test]
fn files_import_each_other_in_no_other_circle_than_those_listed() {
    let mut listed: Vec<&Circle> = CIRCLES.iter().collect();
    let mut wrong = Vec::new();
    for package in packages() {
        for circle in circles(&package.imports()) {
            let known = |c: &&Circle| c.package == package.name && circle.iter().eq(c.members.iter());
            match listed.iter().position(known) {
                Some(i) => drop(listed.remove(i)),
                None => wrong.push(format!("{}: {circle:?} import each other", package.name)),
            }
        }
    }
    let gone = |c: &Circle| {
        format!("{}: CIRCLES lists {:?} ({}), which is no circle", c.package, c.members, c.reason)
    };
    wrong.extend(listed.into_iter().map(gone));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_tensor_does_not_know_cuda() {
    let engine = packages().into_iter().find(|package| package.name == "codelsi-engine").unwrap();
    let imports = engine.imports();
    let imported = &imports["tensor.rs"];
    assert!(imported.contains("tape/") && !imported.contains("cuda/"), "tensor.rs imports {imported:?}");
}

#[test]
fn a_circle_through_a_re_export_is_seen_and_a_facade_is_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join("src").join(name), text).unwrap();
    let package = Package { name: "p".into(), folder: folder.path().into(), dependencies: Vec::new() };
    write("lib.rs", "mod a; mod b; mod c; pub use a::A;");
    write("a.rs", "pub struct A; fn f() { crate::b::g() }");
    write("b.rs", "use crate::c::C; pub fn g() {}");
    write("c.rs", "pub struct C; #[cfg(test)] mod tests { use crate::a::A; }");
    assert!(circles(&package.imports()).is_empty());
    write("b.rs", "use crate::A; pub fn g() {}");
    assert_eq!(circles(&package.imports()), [BTreeSet::from(["a.rs", "b.rs"].map(String::from))]);
}

/// The modules of a crate by their paths, `[]` for the root.
#[derive(Default)]
struct Modules(BTreeMap<Vec<String>, Module>);

struct Module {
    file: PathBuf,
    /// Every path that the module names, in its own terms.
    uses: Vec<Vec<String>>,
    /// Names that the module passes on with `pub use`, and the paths that they stand for.
    exports: Vec<(String, Vec<String>)>,
}

impl Modules {
    fn read(roots: impl Iterator<Item = PathBuf>, src: &Path) -> Self {
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
        let Names { uses, exports } = names;
        self.0.insert(path, Module { file, uses, exports });
    }

    /// The files that each file imports from.
    fn imports(&self) -> impl Iterator<Item = (&Path, Vec<&Path>)> {
        self.0.iter().map(|(path, module)| {
            let defining = module.uses.iter().filter_map(|name| self.defining(path, name, 0));
            (&*module.file, defining.map(|owner| &*self.0[&owner].file).collect())
        })
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
        while let Some(word) = rest.first() {
            let child = [&module[..], &[word.clone()]].concat();
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

fn parse(file: &Path) -> syn::File {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Returns the strongly connected components of more than one node.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|node| (node.as_str(), reached(graph, node))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (node, reached) in &reach {
        let circle = reached.iter().filter(|other| reach.get(*other).is_some_and(|back| back.contains(node)));
        let circle: BTreeSet<String> = circle.map(|other| String::from(*other)).collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// Returns all nodes that `from` leads to.
fn reached<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = graph.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(node) = open.pop() {
        if reached.insert(node) {
            open.extend(graph.get(node).into_iter().flatten().map(String::as_str));
        }
    }
    reached
}
