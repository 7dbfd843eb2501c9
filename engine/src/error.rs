//! The one error type of the workspace: a message, and the path of modules it came through.
//!
//! It prints as one line: `layers.7.mlp.down_proj: lora: x is (3, 5), A is (16, 8): …`.

use crate::printable::printable;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;

/// Result with the workspace's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Characters of an error that are shown.
const SHOWN: usize = 8000;

/// An error: what failed, where, and (in the message) what to do about it. It always displays as one line, which is
/// [`printable`]: a message may repeat what a hostile file says.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// Outermost first: modules (`layers.7`), then the op (`lora`), or a file.
    path: Vec<String>,
    message: String,
    cause: Cause,
}

/// Causes that callers distinguish, to add advice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cause {
    /// A device had no memory left.
    Memory,
    /// A computed number is NaN or infinite.
    NotFinite,
    /// A signal asked the process to end ([`crate::interrupt`]).
    Interrupted,
    #[default]
    Other,
}

impl Error {
    /// Returns an error with a plain message.
    pub fn new(message: impl Into<String>) -> Self {
        Error { path: Vec::new(), message: message.into(), cause: Cause::default() }
    }

    /// Returns an op's error, `op: message`; the message names the shapes.
    pub fn op(op: &str, message: impl Into<String>) -> Self {
        Error::new(message).at(op)
    }

    /// Returns an error about a file or folder, `path: error`.
    pub fn io(path: impl AsRef<Path>, error: impl fmt::Display) -> Self {
        Error::new(error.to_string()).at(path.as_ref().display().to_string())
    }

    /// Marks the error as that of a device with no memory left.
    pub fn out_of_memory(self) -> Self {
        Error { cause: Cause::Memory, ..self }
    }

    /// True when a device had no memory left, so that the caller can advise a flag ([`Error::advise`]).
    pub fn is_out_of_memory(&self) -> bool {
        self.cause == Cause::Memory
    }

    /// Marks the error as that of a computed number that is NaN or infinite.
    pub fn not_finite(self) -> Self {
        Error { cause: Cause::NotFinite, ..self }
    }

    /// True when a computed number is NaN or infinite, so that the caller can look for the tensor behind it.
    pub fn is_not_finite(&self) -> bool {
        self.cause == Cause::NotFinite
    }

    /// Marks the error as the orderly end that a signal asked for.
    pub fn interrupted(self) -> Self {
        Error { cause: Cause::Interrupted, ..self }
    }

    /// True when the work ended in order because a signal asked for it.
    pub fn is_interrupted(&self) -> bool {
        self.cause == Cause::Interrupted
    }

    /// Appends `advice` to the message.
    pub fn advise(self, advice: &str) -> Self {
        Error { message: format!("{}; {advice}", self.message), ..self }
    }

    /// Prefixes the path with `place`, the module one level further out.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.path.insert(0, place.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        let mut separator = "";
        for place in &self.path {
            // Module names join with a dot to a checkpoint's own path; everything else with a colon.
            let module = is_module(place);
            write!(line, "{}{place}", if separator == "." && !module { ": " } else { separator })?;
            separator = if module { "." } else { ": " };
        }
        if !self.path.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&self.message);
        f.write_str(&printable(&line.replace('\n', " "), SHOWN))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Adds the place where it happened to an error on its way out.
pub trait At<T> {
    /// Prefixes the error's path with `place`.
    fn at(self, place: impl Into<String>) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, place: impl Into<String>) -> Result<T> {
        self.map_err(|e| e.at(place))
    }
}

/// Returns whether a place is a module of a Llama as checkpoints name it.
fn is_module(place: &str) -> bool {
    ["layers.", "self_attn", "mlp"].iter().any(|module| place.starts_with(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_module_path_then_the_op_then_the_message() {
        let e: Result<()> = Err(Error::op("lora", "x is (3, 5),\nA is (16, 8)"));
        let e = e.at("mlp.down_proj").at("layers.7").unwrap_err();
        assert_eq!(e.to_string(), "layers.7.mlp.down_proj: lora: x is (3, 5), A is (16, 8)");
        assert_eq!(Error::io("/a/b", "full").to_string(), "/a/b: full");
    }

    #[test]
    fn what_a_hostile_file_says_neither_steers_a_terminal_nor_fills_it() {
        let e = Error::new(format!("row {}", "x".repeat(3 * SHOWN)))
            .at("a\nb\u{1b}[2J\u{202e}.jsonl")
            .to_string();
        assert!(e.starts_with("a b\\u{1b}[2J\\u{202e}.jsonl: row xxx"), "{}", &e[..80]);
        assert!(e.chars().count() < SHOWN + 100 && e.contains("characters left out"));
    }
}
