//! Proof that the tests of a program ran to their end: a nonce that only the judge can print.

use crate::problem::CandidateProgram;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, RandomState};

/// A request to run a program's tests in a scope that the program cannot reach, and to write the nonce to standard
/// output after them. The program cannot read the nonce, so it cannot print it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// The byte at which the tests begin.
    pub tests_at: usize,
    pub nonce: String,
}

impl Guard {
    /// A guard of `program` with a new nonce.
    pub fn new(program: &CandidateProgram) -> Self {
        Guard { tests_at: program.tests_at, nonce: nonce() }
    }
}

/// A string that no program can guess.
pub fn nonce() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
