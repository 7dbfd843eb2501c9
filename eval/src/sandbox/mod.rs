//! A locked-down child process for programs that are assumed to be hostile.
//!
//! A run is a chain of re-executions of our own binary, so that no code runs between `fork` and `exec`:
//!
//! | stage | what it is | what it does |
//! |---|---|---|
//! | harness | this library, any number of threads | starts `outer`, drains its output, enforces the limits |
//! | `outer` | trusted, one thread | leaves the host's namespaces, starts `init`; dies when the harness does |
//! | `init` | trusted, process 1 of its PID namespace | starts `run`, reaps orphans; when it ends, the kernel ends all below |
//! | `run` | locks itself down, then hostile | [`ChildTask`]: becomes another program, or calls an [`EntryPoint`] |
//!
//! Where namespaces are not permitted (many containers), `outer` and `init` are one process, and Landlock, the seccomp
//! filter and a process group that cannot be left do their work. In either case [`Sandbox::checked`] first tries to
//! break out (`selftest`), and nothing is judged if any attempt succeeds.
//!
//! A program gets its own empty folder to write in, read-only access to the paths given, no network, no sockets, no
//! signals to processes outside, a clean environment, empty standard input, and [`ResourceLimits`].
//!
//! This module does not depend on judges or languages: its callers name the entry points that a child may run.

mod cgroup;
mod config;
mod lockdown;
mod mounts;
mod policy;
mod process_tree;
mod run;
mod seccomp;
mod selftest;
mod stages;
mod task;

pub use policy::{Isolation, ResourceLimits, system_runtime};
pub use run::{CapturedStream, ProcessOutput, Resource, Sandbox, Termination};
pub use task::{ChildTask, EntryPoint, exec};

use cgroup::Delegation;
use codelsi_engine::{Error, Result};

/// Turns this process into a stage of a sandbox, and does not return, if it was started as one; returns at once
/// otherwise. Must be the first call of `main`. `entries` are the entry points that a [`ChildTask::Call`] may name.
pub fn child_entry(entries: &[EntryPoint]) {
    stages::enter(&[&[selftest::ENTRY], entries].concat());
}

impl Sandbox {
    /// Returns a sandbox that has passed its self-test, with the strongest isolation that works on this machine.
    ///
    /// # Errors
    /// Names the protection that failed with each isolation; then nothing must be judged.
    pub fn checked() -> Result<Self> {
        Sandbox::isolated_by(Isolation::Namespaces).or_else(|strong| {
            Sandbox::isolated_by(Isolation::Landlock).map_err(|weak| {
                let what = "the sandbox does not hold on this machine, so nothing is judged";
                Error::new(format!("{what}: with namespaces: {strong}; with Landlock: {weak}"))
            })
        })
    }

    /// Returns a sandbox with the given isolation that has passed its self-test.
    ///
    /// # Errors
    /// Names the protection that failed.
    pub fn isolated_by(isolation: Isolation) -> Result<Self> {
        let tested = |sandbox: Sandbox| selftest::check(&sandbox).map(|()| sandbox);
        match Delegation::of_this_process() {
            // A group that does not keep its limits is left out.
            Some(groups) => tested(Sandbox::untested(isolation).with_groups(groups))
                .or_else(|_| tested(Sandbox::untested(isolation))),
            None => tested(Sandbox::untested(isolation)),
        }
    }
}
