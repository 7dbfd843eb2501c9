//! Dependencies of kernelcheck: the engine, the kernels and a command line, without parsers, TLS or a JavaScript engine.

use std::collections::BTreeSet;
use std::process::Command;

/// Limit on the crates that kernelcheck is built from, itself included.
const MAX_CRATES: usize = 70;

#[test]
fn kernelcheck_builds_from_few_crates() {
    let arguments = ["tree", "--offline", "-p", "codelsi-kernelcheck", "-e", "normal", "--prefix", "none"];
    let tree =
        Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(crates.iter().any(|name| name.starts_with("codelsi-kernels ")), "{crates:?}");
    assert!(crates.len() <= MAX_CRATES, "{} crates: {crates:#?}", crates.len());
}
