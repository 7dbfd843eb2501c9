//! A locked-down child process for programs that are taken to be hostile.
//!
//! A run is a chain of re-executions of our own binary, so that no code runs between `fork` and `exec`:
//!
//! | stage | what it is | what it does |
//! |---|---|---|
//! | harness | this library, any number of threads | starts `outer`, drains its output, watches its tree, enforces the limits |
//! | `outer` | trusted, one thread | leaves the namespaces of the host, starts `init`; dies, with all below, when the harness does |
//! | `init` | trusted, process 1 of its PID namespace | starts `run`, reaps orphans; its end is the end of every process below |
//! | `run` | locks itself down, then hostile | [`Task`]: becomes another program, or runs JavaScript itself |
//!
//! Where namespaces are not permitted (many containers), `outer` and `init` are one process and Landlock, the system
//! call filter and a process group that cannot be left do their work. Either way [`Sandbox::checked`] first tries to
//! break out (`selftest`) and nothing is judged if any attempt succeeds.
//!
//! What a program gets: its own empty folder to write in, read-only access to the paths given, no network, no
//! sockets, no signals to outsiders, a clean environment, empty standard input, and [`Limits`].

mod lock;
mod mounts;
mod run;
mod selftest;
mod stages;
mod syscalls;
mod task;
mod tree;

pub use run::{Captured, End, Limit, Outcome};
pub use task::Task;

use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Must be the first thing `main` does: turns this process into a stage of a sandbox, and does not return, if it was
/// started as one; returns at once otherwise.
pub fn child_entry() {
    stages::enter();
}

/// How a judged program is kept apart from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// User, PID, mount, network, IPC and UTS namespaces with a file tree of its own, besides what `Landlock` has.
    Namespaces,
    /// Landlock, seccomp and a process group that cannot be left.
    Landlock,
}

/// What one run may use, all its processes and threads together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Wall-clock time, without what was spent waiting for a processor; four times as much with it.
    pub wall: Duration,
    /// Processor time of the whole tree.
    pub cpu: Duration,
    /// Resident bytes of the whole tree. Not address space: V8 reserves far more than it uses.
    pub memory: u64,
    /// Processes (threads are not counted).
    pub processes: usize,
    /// Bytes in the writable folder, and of any one file.
    pub disk: u64,
    /// Whether files may be removed, as compilers do. One that is deleted but open escapes the disk limit.
    pub removes: bool,
}

impl Limits {
    /// The limits of MultiPL-E's rule, 15 s of wall time, with bounds on what it leaves open.
    pub fn multipl_e() -> Self {
        let wall = Duration::from_secs(15);
        Limits { wall, cpu: 2 * wall, memory: 2 << 30, processes: 32, disk: 256 << 20, removes: false }
    }
}

/// Starts locked-down children, re-executions of the running binary; made once, shared by all workers.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    isolation: Isolation,
}

impl Sandbox {
    /// A sandbox that has passed its self-test, in the strongest isolation that works here.
    ///
    /// # Errors
    /// Names the protection that failed in each isolation; then nothing must be judged.
    pub fn checked() -> Result<Self> {
        Sandbox::isolated_by(Isolation::Namespaces).or_else(|strong| {
            Sandbox::isolated_by(Isolation::Landlock).map_err(|weak| {
                let what = "the sandbox does not hold here, so nothing is judged";
                Error::new(format!("{what}: with namespaces: {strong}; with Landlock: {weak}"))
            })
        })
    }

    /// A sandbox in the given isolation that has passed its self-test.
    pub fn isolated_by(isolation: Isolation) -> Result<Self> {
        let sandbox = Sandbox { isolation };
        selftest::pass(&sandbox).map(|()| sandbox)
    }

    /// The isolation in force.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }
}

/// The system's part of a runtime: programs and shared libraries, never configuration or home folders.
pub fn system_runtime() -> Vec<PathBuf> {
    let paths = [
        "/bin",
        "/lib",
        "/lib64",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/bin",
        "/usr/local/lib",
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/zero",
        "/dev/random",
        "/dev/urandom",
    ];
    paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}
