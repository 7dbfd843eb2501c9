//! Programs run by Node with their types stripped: as they are, or guarded.

use super::guard::Guard;
use super::source::{Engine, guarded_program, strip_types};
use crate::sandbox::{self, ChildTask, EntryPoint};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Strips the types of the program in `file.ts`, then becomes Node, which runs it.
pub const ENTRY: EntryPoint = EntryPoint { name: "stripped-node", main: run };

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StrippedNodeRun {
    node: PathBuf,
    /// False for a program in JavaScript, which stays as it is.
    typed: bool,
    guard: Option<Guard>,
}

/// The task that runs the program in `file.ts`.
pub fn task(node: &Path) -> ChildTask {
    ENTRY.task(&StrippedNodeRun { node: node.to_owned(), typed: true, guard: None })
}

/// The task that runs the program in `file.ts` guarded. The nonce reaches Node by standard input alone.
pub fn guarded_task(node: &Path, typed: bool, guard: &Guard) -> ChildTask {
    ENTRY.task(&StrippedNodeRun { node: node.to_owned(), typed, guard: Some(guard.clone()) })
}

fn run(argument: &str) -> i32 {
    let run: StrippedNodeRun = serde_json::from_str(argument).expect("written by `task`");
    let node = run.node.clone();
    let nonce = run.guard.as_ref().map(|guard| guard.nonce.clone());
    match write_program(run) {
        Ok(()) => {
            let file = if nonce.is_some() { "guarded_node.js" } else { "file.js" };
            sandbox::exec(&node, &[file.into()], &nonce.unwrap_or_default())
        }
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

/// Writes JavaScript to the folder of the program.
fn write_program(run: StrippedNodeRun) -> Result<(), String> {
    // The parser recurses, and a program may be nested arbitrarily deep.
    let deep = std::thread::Builder::new().stack_size(256 << 20);
    let writer = deep.spawn(move || strip_and_write(&run)).map_err(|e| e.to_string())?;
    writer.join().map_err(|_| "the parser panicked")?
}

fn strip_and_write(run: &StrippedNodeRun) -> Result<(), String> {
    let source = fs::read_to_string("file.ts").map_err(|e| e.to_string())?;
    let strip = |part: &str| match run.typed {
        true => strip_types(part, Engine::Node).map(|s| s.code).map_err(|e| format!("SyntaxError: {e}")),
        false => Ok(part.to_string()),
    };
    let files = match &run.guard {
        None => vec![("file.js", strip(&source)?)],
        Some(guard) => {
            let program = guarded_program(&source, guard.tests_at, strip)?;
            let driver = include_str!("js/guarded_node.js").to_string();
            // The guarded program finds no file that holds its tests.
            vec![
                ("file.ts", String::new()),
                ("candidate.js", program.candidate),
                ("tests.js", program.tests),
                ("guarded_node.js", driver),
            ]
        }
    };
    files.iter().try_for_each(|(name, text)| fs::write(name, text)).map_err(|e| e.to_string())
}
