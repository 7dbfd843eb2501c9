//! The work of a locked-down process: another program, or an entry point of our own binary.

use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The work of the last stage, done after the lockdown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ChildTask {
    /// Becomes another program; `stdin` (at most a pipe's 64 KiB) is all that it can read from standard input.
    Exec { program: PathBuf, args: Vec<String>, stdin: String },
    /// Calls the registered [`EntryPoint`] of that name.
    Call { entry: String, argument: String },
}

impl ChildTask {
    /// Becomes `program` with `args` and an empty standard input.
    pub fn exec(program: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        ChildTask::Exec { program: program.to_owned(), args, stdin: String::new() }
    }

    /// Binds the task to this binary's entry points. The closure does the work and returns the exit code.
    ///
    /// # Errors
    /// When no entry point has the task's name.
    pub(super) fn bind(self, entries: &[EntryPoint]) -> Result<Box<dyn FnOnce() -> i32>> {
        match self {
            ChildTask::Exec { program, args, stdin } => Ok(Box::new(move || exec(&program, &args, &stdin))),
            ChildTask::Call { entry, argument } => {
                let found = entries.iter().find(|known| known.name == entry);
                let missing =
                    || Error::new(format!("`main` of this binary registers no entry point `{entry}`"));
                let main = found.ok_or_else(missing)?.main;
                Ok(Box::new(move || main(&argument)))
            }
        }
    }
}

/// A function of our own binary that a sandboxed child can run. `main` registers it with [`super::child_entry`].
#[derive(Clone, Copy, Debug)]
pub struct EntryPoint {
    pub name: &'static str,
    /// Receives the task's argument as JSON; returns the exit code.
    pub main: fn(argument: &str) -> i32,
}

impl EntryPoint {
    /// The task that calls this entry point with `argument`.
    pub fn task(&self, argument: &impl Serialize) -> ChildTask {
        let argument = serde_json::to_string(argument).expect("plain data serializes");
        ChildTask::Call { entry: self.name.into(), argument }
    }
}

/// Replaces this process by `program`, with `stdin` on its standard input; returns (127) only if that fails.
pub fn exec(program: &Path, args: &[String], stdin: &str) -> i32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registered_entry_points_run() {
        let entry = EntryPoint { name: "length", main: |argument| argument.len() as i32 };
        assert_eq!(entry.task(&7).bind(&[entry]).unwrap()(), 1);
        let error = entry.task(&7).bind(&[]).err().unwrap().to_string();
        assert!(error.contains("`length`"), "{error}");
    }
}
