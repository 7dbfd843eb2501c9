//! Errors of the software GPU.

use crate::fault::Fault;
use std::fmt;

/// Result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error; its `Display` is one line.
#[derive(Debug)]
pub enum Error {
    /// PTX text that cannot be executed: a syntax error, an unsupported instruction, an unresolved name.
    Ptx {
        /// Line of the PTX text, counted from 1.
        line: u32,
        /// Description of the error.
        what: String,
    },
    /// A host call with invalid arguments: an address that was never allocated, a block too large.
    Call(String),
    /// A failed check inside a kernel.
    Fault(Box<Fault>),
}

impl Error {
    pub(crate) fn ptx(line: u32, what: impl Into<String>) -> Error {
        Error::Ptx { line, what: what.into() }
    }

    pub(crate) fn call(what: impl Into<String>) -> Error {
        Error::Call(what.into())
    }

    /// Returns the fault, if a check inside a kernel failed.
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
