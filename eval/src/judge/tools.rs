//! Compilers and runtimes of the machine, run in the sandbox.

use crate::sandbox::{ChildTask, ProcessOutput, ResourceLimits, Sandbox};
use codelsi_engine::Result;
use std::path::{Path, PathBuf};

/// The sandbox and the paths that the tools of one judge read in it.
pub struct SandboxedTools {
    pub sandbox: Sandbox,
    pub readable: Vec<PathBuf>,
}

impl SandboxedTools {
    /// Runs `task` in `folder`, the only folder that it can write to.
    pub fn run(&self, task: ChildTask, folder: &Path, limits: ResourceLimits) -> Result<ProcessOutput> {
        self.sandbox.run(task, folder, &self.readable, limits)
    }
}

/// Returns the first file of that name on `PATH`.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
