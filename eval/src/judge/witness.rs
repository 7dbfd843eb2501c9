//! Proof, under Node, that a program which counts as solved ran its tests to their end.

use super::strip::strip;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The work of the child before it becomes Node: the program is in `file.ts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub node: PathBuf,
    pub tests_at: usize,
    /// What Node writes when the tests have run to their end; it reaches Node by standard input alone.
    pub word: String,
}

impl Job {
    /// Writes candidate, tests and driver beside the program; the program to become, its arguments, its input.
    pub fn prepare(self) -> Result<(PathBuf, Vec<String>, String), String> {
        // The parser recurses; what it is given may be nested as deep as it likes.
        let deep = std::thread::Builder::new().stack_size(256 << 20);
        let write = deep.spawn(move || write(self.tests_at)).map_err(|e| e.to_string())?;
        write.join().map_err(|_| "the parser gave up")??;
        Ok((self.node, vec!["witness.js".into()], self.word))
    }
}

fn write(tests_at: usize) -> Result<(), String> {
    let source = std::fs::read_to_string("file.ts").map_err(|e| e.to_string())?;
    let (candidate, tests) = source.split_at(tests_at);
    let files = [
        ("candidate.js", strip(candidate)?.code),
        ("tests.js", strip(tests)?.code),
        ("witness.js", include_str!("js/witness.js").to_string()),
    ];
    files.iter().try_for_each(|(name, text)| std::fs::write(name, text)).map_err(|e| e.to_string())
}
