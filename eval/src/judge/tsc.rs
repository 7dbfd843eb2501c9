//! MultiPL-E's own judge: `tsc --target esnext file.ts`, then `node file.js`, 15 s each.

use super::batch_compile::{self, CompiledProgram};
use super::diagnosis::{classify, diagnostics, first_lines};
use super::judgement::{Judge, Judgement, Status};
use super::node::{self, ask_version, find_node};
use super::program_folder::{program_folder, write};
use super::tools::{SandboxedTools, find_on_path};
use crate::problem::CandidateProgram;
use crate::sandbox::{ChildTask, ProcessOutput, Resource, ResourceLimits, Sandbox, Termination};
use codelsi_engine::{Error, Result};
use std::path::{Path, PathBuf};

/// Compiles and runs with the TypeScript and Node of the machine.
pub struct TscJudge {
    tools: SandboxedTools,
    node: PathBuf,
    /// The compiler: a script for Node, or a native program.
    tsc: PathBuf,
    native: bool,
    versions: String,
}

impl TscJudge {
    /// Finds the compiler (`tsc` if given, else `CODELSI_TSC`, else `.tools` and `node_modules` of the current folder
    /// and the folders above it, else `PATH`) and Node (`node` if given, else `PATH`), and asks both for their
    /// versions inside the sandbox.
    ///
    /// # Errors
    /// When one is missing or does not run in the sandbox.
    pub fn find(sandbox: Sandbox, tsc: Option<PathBuf>, node: Option<PathBuf>) -> Result<Self> {
        let node = find_node(node)?;
        let script = find_compiler(tsc)?;
        let script = script.canonicalize().map_err(|e| Error::io(script, e))?;
        let tsc = native_compiler(&script).unwrap_or(script);
        let native = !std::fs::read(&tsc).map_err(|e| Error::io(&tsc, e))?.starts_with(b"#!");
        let mut readable = node::readable(&node);
        readable.push(package_of(&tsc));
        let tools = SandboxedTools { sandbox, readable };
        let mut judge = TscJudge { tools, node, tsc, native, versions: String::new() };
        judge.versions = judge.ask_versions()?;
        Ok(judge)
    }

    fn ask_versions(&self) -> Result<String> {
        let tsc = ask_version(&self.tools, self.tsc_task(&["--version"]), &self.tsc)?;
        let node = ask_version(&self.tools, ChildTask::exec(&self.node, &["--version"]), &self.node)?;
        let (tsc, node) = (tsc.trim_start_matches("Version "), node.trim_start_matches('v'));
        Ok(format!("TypeScript {tsc}, Node {node}"))
    }

    fn tsc_task(&self, args: &[&str]) -> ChildTask {
        match self.native {
            true => ChildTask::exec(&self.tsc, args),
            false => {
                let script = self.tsc.display().to_string();
                ChildTask::exec(&self.node, &[&[script.as_str()], args].concat())
            }
        }
    }

    /// Returns the compiler's library; a native compiler has none.
    fn library(&self) -> Option<PathBuf> {
        let library = self.tsc.parent()?.parent()?.join("lib/typescript.js");
        (!self.native && library.is_file()).then_some(library)
    }

    /// Compiles the programs in one process; `None` for those that must be compiled alone.
    ///
    /// # Errors
    /// When the disk or the sandbox fails.
    pub fn compile_batch(&self, programs: &[&CandidateProgram]) -> Result<Vec<Option<CompiledProgram>>> {
        match self.library() {
            Some(library) if programs.len() > 1 => {
                batch_compile::compile(&self.tools, &self.node, &library, programs)
            }
            _ => Ok(programs.iter().map(|_| None).collect()),
        }
    }

    /// Runs the compiled program `file.js` in a folder.
    fn run_program(&self, folder: &Path, compile_seconds: f64) -> Result<Judgement> {
        let task = ChildTask::exec(&self.node, &["file.js"]);
        let run = self.tools.run(task, folder, ResourceLimits::multipl_e())?;
        let (status, message) = (classify(&run), diagnostics(&run, folder));
        Ok(Judgement { status, message, seconds: compile_seconds + run.seconds })
    }

    /// Judges a program that was compiled in a batch.
    fn judge_compiled(&self, program: &CandidateProgram, compiled: CompiledProgram) -> Result<Judgement> {
        let Some(code) = compiled.code.filter(|_| compiled.accepted) else {
            let message = first_lines(&compiled.diagnostics);
            return Ok(Judgement { status: Status::SyntaxError, message, seconds: compiled.seconds });
        };
        let folder = program_folder(program)?;
        write(&folder.path().join("file.js"), code)?;
        self.run_program(folder.path(), compiled.seconds)
    }
}

impl Judge for TscJudge {
    fn languages(&self) -> &'static [&'static str] {
        &["ts"]
    }

    fn describe(&self) -> String {
        format!("tsc: tsc --target esnext, then node, 15 s each; {}", self.versions)
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let folder = program_folder(program)?;
        let task = || self.tsc_task(&["--target", "esnext", "file.ts"]);
        let compile = || self.tools.run(task(), folder.path(), ResourceLimits::multipl_e());
        let mut compiled = compile()?;
        if crashed(&compiled) {
            // On a machine short of memory or processes the program need not be the cause.
            compiled = compile()?;
        }
        if compiled.end != Termination::Exited(0) {
            return Ok(Judgement {
                status: Status::SyntaxError,
                message: diagnostics(&compiled, folder.path()),
                seconds: compiled.seconds,
            });
        }
        self.run_program(folder.path(), compiled.seconds)
    }

    fn batch_size(&self) -> usize {
        if self.library().is_some() { batch_compile::MAX_BATCH } else { 1 }
    }

    fn judge_batch(
        &self,
        programs: &[&CandidateProgram],
        on_judgement: &mut dyn FnMut(usize, Judgement) -> Result<()>,
    ) -> Result<()> {
        let compiled = self.compile_batch(programs)?;
        for (i, (program, compiled)) in programs.iter().zip(compiled).enumerate() {
            let judgement = match compiled {
                Some(compiled) => self.judge_compiled(program, compiled)?,
                None => self.judge(program)?,
            };
            on_judgement(i, judgement)?;
        }
        Ok(())
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        node::reaches_end(&self.tools, &self.node, true, program)
    }
}

/// Returns true if the compiler neither accepted nor refused the program, nor ran out of time.
fn crashed(compiled: &ProcessOutput) -> bool {
    match compiled.end {
        Termination::Exited(0) | Termination::LimitExceeded(Resource::Wall | Resource::Cpu) => false,
        Termination::Exited(_) | Termination::LimitExceeded(_) => !compiled.stdout.contains("error TS"),
    }
}

fn find_compiler(given: Option<PathBuf>) -> Result<PathBuf> {
    let named = || std::env::var_os("CODELSI_TSC").map(PathBuf::from);
    let found = given.or_else(named).or_else(find_installed).or_else(|| find_on_path("tsc"));
    found.ok_or_else(|| {
        let remedy = "run `npm install typescript@5.3.3`, set CODELSI_TSC, or use --judge node or embedded";
        Error::op("tsc judge", format!("no `tsc` found; {remedy}"))
    })
}

/// Finds a compiler installed in the current folder or above it. `tools/test.sh` installs the pinned one in the first
/// of these places.
fn find_installed() -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    let modules = [".tools/typescript/node_modules", ".tools/node_modules", "node_modules"];
    let tsc = |folder: &Path| modules.map(|module| folder.join(module).join(".bin/tsc"));
    current.ancestors().flat_map(tsc).find(|file| file.is_file())
}

/// Returns the native compiler that the script starts, from TypeScript 7 on: a program in a sibling of the
/// script's package. It finds its libraries by its own path, so it can be started without the script.
fn native_compiler(script: &Path) -> Option<PathBuf> {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let modules = script.ancestors().find(|folder| folder.ends_with("node_modules"))?;
    let program = modules.join(format!("@typescript/typescript-linux-{arch}/lib/tsc"));
    (script.parent()?.parent()?.ends_with("typescript") && program.is_file()).then_some(program)
}

/// Returns the folder of the compiler's package, which is all that it reads.
fn package_of(tsc: &Path) -> PathBuf {
    let package = tsc.ancestors().find(|folder| folder.join("package.json").is_file());
    package.unwrap_or(tsc).to_path_buf()
}
