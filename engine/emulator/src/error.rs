//! What the software GPU reports.

use crate::fault::Fault;
use std::fmt;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error; its `Display` is one clear line.
#[derive(Debug)]
pub enum Error {
    /// A module that is not the PTX this GPU executes: unknown instruction, bad syntax, unresolved name.
    Ptx {
        /// The line of the PTX text, counted from 1.
        line: u32,
        /// What is wrong there.
        what: String,
    },
    /// A host call with arguments that make no sense: an address that was never allocated, a block too large.
    Call(String),
    /// A check that failed inside a kernel.
    Fault(Box<Fault>),
}

impl Error {
    pub(crate) fn ptx(line: u32, what: impl Into<String>) -> Error {
        Error::Ptx { line, what: what.into() }
    }

    pub(crate) fn call(what: impl Into<String>) -> Error {
        Error::Call(what.into())
    }

    /// The fault, when a kernel's check failed.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Fault(f) => Some(f),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ptx { line, what } => write!(f, "PTX line {line}: {what}"),
            Error::Call(what) => f.write_str(what),
            Error::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(Box::new(fault))
    }
}
