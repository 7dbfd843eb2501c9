//! Layers: no crate depends on one above it or beside it, and inside of a crate files import each other in no circle but
//! those that are listed here, each with its reason. `unsafe` stays in the files listed here.

mod modules;

use modules::{Modules, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates from the ground up; a crate may depend on those of earlier lines only.
const LAYERS: &[&[&str]] = &[
    &["codelsi-emulator", "codelsi-testing"],
    &["codelsi-engine"],
    &["codelsi-kernels"],
    &["codelsi-model"],
    &["codelsi-curate", "codelsi-train", "codelsi-eval"],
    &["codelsi-launch", "codelsi-demo"],
    &["codelsi-experiment"],
    &["codelsi-kernelcheck", "codelsi-parity", "codelsi-serve"],
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
        reason: "a kernel holds its decoded code, which names the kernel's parameters; decoding finds where its branches meet",
    },
    Circle {
        package: "codelsi-emulator",
        members: &[
            "exec/address.rs",
            "exec/barrier.rs",
            "exec/copy.rs",
            "exec/footprint.rs",
            "exec/global_shadow.rs",
            "exec/grid_races.rs",
            "exec/last_access.rs",
            "exec/launch.rs",
            "exec/shared_memory.rs",
            "exec/thread_block.rs",
            "exec/vector_clock.rs",
            "exec/wait.rs",
            "exec/warp.rs",
        ],
        reason: "a block owns its warps and its memory, and an instruction of a warp works on its block",
    },
    Circle {
        package: "codelsi-engine",
        members: &["ctx.rs", "tape/"],
        reason: "an Op takes a Ctx, which holds the tape of Ops",
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

/// Files and folders with `unsafe` code, from the workspace's root; besides them, an op's `cuda.rs` launches its kernels.
const UNSAFE: &[&str] = &[
    "benches/src/cublaslt.rs",
    "engine/emulator/src/exec/thread_block.rs",
    "engine/src/comm/communicator.rs",
    "engine/src/cuda/",
    "engine/src/host_block.rs",
    "engine/src/team.rs",
    "eval/src/sandbox/stages.rs",
    "kernels/src/disjoint.rs",
    "kernels/src/flash/cpu/",
    "kernels/src/gemm/cpu/",
    "kernels/src/lora/cpu/",
    "kernels/src/roof/",
    "kernels/src/simd.rs",
    "model/src/checkpoint/tensor_file.rs",
];

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

    fn is_in(&self, folder: &str) -> bool {
        self.folder.starts_with(workspace().join(folder))
    }

    /// The root files of its library and its binary.
    fn roots(&self) -> impl Iterator<Item = PathBuf> {
        ["lib.rs", "main.rs"].map(|name| self.src().join(name)).into_iter().filter(|root| root.exists())
    }

    fn modules(&self) -> Modules {
        Modules::read(self.roots(), &self.src())
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
        for (file, imported) in self.modules().imports() {
            let room = self.room(file);
            let others = imported.into_iter().map(|file| self.room(file)).filter(|other| *other != room);
            imports.entry(room.clone()).or_default().extend(others);
        }
        imports
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
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
    for (dependency, user) in [
        ("ureq", "codelsi-experiment"), // asks servers
        ("axum", "codelsi-serve"),      // is one
        ("hyper", "codelsi-serve"),
        ("tokio", "codelsi-serve"),
        ("tracing", "codelsi-serve"),
    ] {
        let users = graph.iter().filter(|(_, dependencies)| dependencies.contains(dependency));
        let users: Vec<&str> = users.map(|(package, _)| package.as_str()).collect();
        assert_eq!(users, [user], "one crate uses {dependency}");
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
    assert!(imported.contains("memory.rs") && !imported.contains("cuda/"), "tensor.rs imports {imported:?}");
}

#[test]
fn tools_and_training_forbid_unsafe_code() {
    let packages = packages();
    let safe = packages.iter().filter(|p| ["tools", "train"].iter().any(|folder| p.is_in(folder)));
    let roots: Vec<PathBuf> = safe.flat_map(Package::roots).collect();
    assert!(roots.len() >= 8, "{roots:?}");
    for root in roots {
        let forbids = |a: &syn::Attribute| {
            a.path().is_ident("forbid") && a.parse_args::<syn::Ident>().is_ok_and(|l| l == "unsafe_code")
        };
        let forbidden = parse(&root).attrs.iter().any(forbids);
        assert!(forbidden, "{}: #![forbid(unsafe_code)] is missing", root.display());
    }
}

#[test]
fn unsafe_code_stays_where_it_is_listed() {
    let mut files = BTreeSet::new();
    for package in packages() {
        let modules = package.modules();
        files.extend(modules.unsafe_files().map(|file| file.strip_prefix(workspace()).unwrap().to_owned()));
    }
    let is_launch = |file: &Path| {
        file.starts_with("kernels/src")
            && file.components().any(|c| Path::new(&c).file_stem() == Some("cuda".as_ref()))
    };
    for file in files.iter().filter(|file| !is_launch(file)) {
        assert!(UNSAFE.iter().any(|listed| file.starts_with(listed)), "{}: unsafe code", file.display());
    }
    for listed in UNSAFE {
        assert!(files.iter().any(|file| file.starts_with(listed)), "{listed} has no unsafe code any more");
    }
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
