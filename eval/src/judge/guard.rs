//! Proof that the tests of a program ran to their end: a nonce that only the judge can print.

use crate::problem::CandidateProgram;
use crate::sandbox::{ProcessOutput, Resource, ResourceLimits, Termination};
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

    /// The limits of a guarded run: twice those of the run that it repeats, so that a slow program is not taken for a
    /// dishonest one.
    pub fn limits() -> ResourceLimits {
        let limits = ResourceLimits::multipl_e();
        ResourceLimits { wall: 2 * limits.wall, cpu: 2 * limits.cpu, ..limits }
    }

    /// Returns true if the tests ran to their end, or the program to the end of its time.
    pub fn is_held(&self, output: &ProcessOutput) -> bool {
        matches!(output.end, Termination::LimitExceeded(Resource::Wall | Resource::Cpu))
            || output.stdout.contains(&self.nonce)
    }
}

/// A string that no program can guess.
pub fn nonce() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
