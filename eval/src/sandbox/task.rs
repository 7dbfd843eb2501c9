//! What a locked-down process does.

use super::selftest::Attempt;
use crate::judge::{embedded, witness};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The work of the last stage, done behind every lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Becomes another program.
    Exec { program: PathBuf, args: Vec<String>, stdin: String },
    /// Runs the TypeScript program in the folder in the embedded engine.
    Embedded(embedded::Job),
    /// Strips the TypeScript program in the folder, then becomes Node, which runs it guarded.
    Witness(witness::Job),
    /// Tries to break out.
    Attempt(Attempt),
}

impl Task {
    /// Does the work; the result is the exit code.
    pub(super) fn perform(self) -> i32 {
        match self {
            Task::Exec { program, args, stdin } => exec(&program, &args, &stdin),
            Task::Embedded(job) => job.run(),
            Task::Witness(job) => match job.prepare() {
                Ok((program, args, stdin)) => exec(&program, &args, &stdin),
                Err(e) => {
                    eprintln!("{e}");
                    1
                }
            },
            Task::Attempt(attempt) => attempt.run(),
        }
    }
}

/// Replaces this process; `stdin` (at most a pipe's 64 KiB) is all that the program can read from it.
fn exec(program: &PathBuf, args: &[String], stdin: &str) -> i32 {
    let error = match std::io::pipe() {
        Ok((reader, mut writer)) => match writer.write_all(stdin.as_bytes()) {
            Ok(()) => {
                drop(writer);
                Command::new(program).args(args).stdin(Stdio::from(reader)).exec()
            }
            Err(e) => e,
        },
        Err(e) => e,
    };
    eprintln!("{}: {error}", program.display());
    127
}
