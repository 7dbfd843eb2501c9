//! The guarded run of a TypeScript program under Node, after the `tsc` judge has found it solved.

use super::guard::Guard;
use super::strip_types::strip_types;
use crate::sandbox::{self, ChildTask, EntryPoint};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Strips the types of the program in `file.ts`, then becomes Node, which runs it guarded.
pub const ENTRY: EntryPoint = EntryPoint { name: "guarded-node", main: run };

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GuardedNodeRun {
    node: PathBuf,
    guard: Guard,
}

/// The task that runs the program in `file.ts` guarded. The nonce reaches Node by standard input alone.
pub fn task(node: &Path, guard: &Guard) -> ChildTask {
    ENTRY.task(&GuardedNodeRun { node: node.to_owned(), guard: guard.clone() })
}

fn run(argument: &str) -> i32 {
    let GuardedNodeRun { node, guard } = serde_json::from_str(argument).expect("written by `task`");
    match write_parts(guard.tests_at) {
        Ok(()) => sandbox::exec(&node, &["guarded_node.js".into()], &guard.nonce),
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

/// Writes candidate, tests and driver to the folder of the program.
fn write_parts(tests_at: usize) -> Result<(), String> {
    // The parser recurses, and a program may be nested arbitrarily deep.
    let deep = std::thread::Builder::new().stack_size(256 << 20);
    let writer = deep.spawn(move || strip_and_write(tests_at)).map_err(|e| e.to_string())?;
    writer.join().map_err(|_| "the parser panicked")?
}

fn strip_and_write(tests_at: usize) -> Result<(), String> {
    let source = std::fs::read_to_string("file.ts").map_err(|e| e.to_string())?;
    let (candidate, tests) = source.split_at(tests_at);
    let files = [
        ("candidate.js", strip_types(candidate)?.code),
        ("tests.js", strip_types(tests)?.code),
        ("guarded_node.js", include_str!("js/guarded_node.js").to_string()),
    ];
    files.iter().try_for_each(|(name, text)| std::fs::write(name, text)).map_err(|e| e.to_string())
}
