//! The policy of a sandboxed run: the isolation, the resource limits, the readable part of the system.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The kernel mechanisms that separate a judged program from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// User, PID, mount, network, IPC and UTS namespaces with a private file tree, and the mechanisms of `Landlock`.
    Namespaces,
    /// Landlock, seccomp and a process group that cannot be left.
    Landlock,
}

/// The resources that one run may use, summed over all its processes and threads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Wall-clock time, excluding the time spent waiting for a processor; four times as much including it.
    pub wall: Duration,
    /// Processor time of the whole process tree.
    pub cpu: Duration,
    /// Bytes of the whole process tree: resident ones, page tables, buffers of sockets. Not address space: V8 reserves far
    /// more than it uses.
    pub memory: u64,
    /// Number of processes.
    pub processes: usize,
    /// Number of threads of all processes. A Java machine starts some per processor.
    pub threads: usize,
    /// Bytes in the writable folder, and of any one file.
    pub disk: u64,
    /// Allows removing files, which compilers need. A file that is deleted but still open escapes the disk limit.
    pub may_remove_files: bool,
}

impl ResourceLimits {
    /// MultiPL-E's limit, 15 s of wall time, with bounds on the resources that MultiPL-E leaves open.
    pub fn multipl_e() -> Self {
        let wall = Duration::from_secs(15);
        ResourceLimits {
            wall,
            cpu: 2 * wall,
            memory: 2 << 30,
            processes: 32,
            threads: 512,
            disk: 256 << 20,
            may_remove_files: false,
        }
    }
}

/// Paths of the system that a runtime needs: programs and shared libraries, never configuration or home folders.
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
