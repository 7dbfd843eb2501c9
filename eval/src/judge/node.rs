//! The `node` judge: strips the types and runs the JavaScript with the machine's Node, 15 s, in the sandbox.

use super::diagnosis::{classify, diagnostics};
use super::guard::Guard;
use super::judgement::{Judge, Judgement};
use super::program_folder::program_folder;
use super::stripped_node;
use super::tools::{SandboxedTools, find_on_path};
use crate::problem::CandidateProgram;
use crate::sandbox::{ChildTask, ResourceLimits, Sandbox, Termination, system_runtime};
use codelsi_engine::{Error, Result, ScratchFolder};
use std::path::{Path, PathBuf};

/// Judges without a type check, by the Node of the machine.
pub struct NodeJudge {
    tools: SandboxedTools,
    node: PathBuf,
    version: String,
}

impl NodeJudge {
    /// Finds Node (`node` if given, else `PATH`), and asks it for its version inside the sandbox.
    ///
    /// # Errors
    /// When it is missing or does not run in the sandbox.
    pub fn find(sandbox: Sandbox, node: Option<PathBuf>) -> Result<Self> {
        let node = find_node(node)?;
        let tools = SandboxedTools { sandbox, readable: readable(&node) };
        let version = ask_version(&tools, ChildTask::exec(&node, &["--version"]), &node)?;
        Ok(NodeJudge { tools, node, version })
    }
}

impl Judge for NodeJudge {
    fn languages(&self) -> &'static [&'static str] {
        &["ts"]
    }

    fn describe(&self) -> String {
        let version = self.version.trim_start_matches('v');
        format!(
            "node: types stripped by oxc, then node, 15 s; no type check, so an upper bound; Node {version}"
        )
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let folder = program_folder(program)?;
        let task = stripped_node::task(&self.node);
        let run = self.tools.run(task, folder.path(), ResourceLimits::multipl_e())?;
        let (status, message) = (classify(&run), diagnostics(&run, folder.path()));
        Ok(Judgement { status, message, seconds: run.seconds })
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        reaches_end(&self.tools, &self.node, true, program)
    }
}

/// Runs a program guarded under Node; `typed` is false for JavaScript.
///
/// # Errors
/// As [`Judge::reaches_end`].
pub fn reaches_end(
    tools: &SandboxedTools,
    node: &Path,
    typed: bool,
    program: &CandidateProgram,
) -> Result<bool> {
    // A fresh folder: the first run may have rewritten the program.
    let folder = program_folder(program)?;
    let guard = Guard::new(program);
    let task = stripped_node::guarded_task(node, typed, &guard);
    let output = tools.run(task, folder.path(), Guard::limits())?;
    Ok(guard.is_held(&output))
}

/// Returns the real file of the given Node, else of that on `PATH`.
///
/// # Errors
/// When there is none.
pub fn find_node(given: Option<PathBuf>) -> Result<PathBuf> {
    let missing = || Error::op("node", "no `node` on PATH; install Node 20, or use --judge embedded");
    let node = given.or_else(|| find_on_path("node")).ok_or_else(missing)?;
    node.canonicalize().map_err(|e| Error::io(node, e))
}

/// Returns the paths that Node reads.
pub fn readable(node: &Path) -> Vec<PathBuf> {
    let of_node = ["/usr/share/nodejs", "/etc/ssl/openssl.cnf"].map(PathBuf::from);
    let of_node = of_node.into_iter().filter(|path| path.exists());
    system_runtime().into_iter().chain(of_node).chain([node.to_owned()]).collect()
}

/// Asks a tool, by the task that prints it, for its version.
///
/// # Errors
/// When it does not run in the sandbox.
pub fn ask_version(tools: &SandboxedTools, task: ChildTask, path: &Path) -> Result<String> {
    let empty = ScratchFolder::new()?;
    let output = tools.run(task, empty.path(), ResourceLimits::multipl_e())?;
    let version = output.stdout.printable().trim().to_string();
    if output.end == Termination::Exited(0) && !version.is_empty() {
        return Ok(version);
    }
    let stderr = output.stderr.printable();
    let cause = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
    Err(Error::op("judge", format!("{} --version fails in the sandbox: {cause}", path.display())))
}
