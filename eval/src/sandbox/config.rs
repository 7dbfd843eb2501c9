//! The messages between the harness and the stages of a sandboxed run.

use super::policy::{Isolation, ResourceLimits};
use super::task::ChildTask;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;

/// The first argument of every stage; the second is the stage's name.
pub const STAGE_FLAG: &str = "--codelsi-sandbox-stage";
/// The running binary, even when its file has been replaced.
pub const SELF: &str = "/proc/self/exe";
/// Written to standard output before anything hostile runs; output that does not begin with it is a failed set-up.
pub const READY: &[u8] = b"codelsi-sandbox: ready\n";

/// The configuration of the stages, sent down the chain as one line of standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub isolation: Isolation,
    /// The one folder that can be written to.
    pub folder: PathBuf,
    /// An empty folder, the mount point of the namespace's private file tree.
    pub root: PathBuf,
    /// Further paths that can be read.
    pub readable: Vec<PathBuf>,
    pub limits: ResourceLimits,
    pub task: ChildTask,
}

impl SandboxConfig {
    /// Writes the configuration to the next stage's standard input.
    pub fn send(&self, mut to: impl Write) -> std::io::Result<()> {
        to.write_all(crate::jsonl::line(self).as_bytes())?;
        to.flush()
    }

    /// Reads the configuration from this stage's standard input.
    pub fn receive() -> Result<Self> {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|e| setup_error("configuration", e))?;
        serde_json::from_str(&line).map_err(|e| setup_error("configuration", e))
    }
}

/// An operating-system error in one step of the set-up.
pub fn setup_error(step: &str, error: impl std::fmt::Display) -> Error {
    Error::op(step, error.to_string())
}
