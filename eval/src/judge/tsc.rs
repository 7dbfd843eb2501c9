//! MultiPL-E's own judge: `tsc --target esnext file.ts`, then `node file.js`, 15 s each.

use super::together::{self, Compiled};
use super::{Judge, Judgement, Status, classify, complaint, on_path, shortened, witness};
use crate::problem::Program;
use crate::sandbox::{End, Limit, Limits, Outcome, Sandbox, Task, system_runtime};
use codelsi_engine::{Error, Result};
use std::path::{Path, PathBuf};

/// Compiles and runs with the TypeScript and Node that were found.
pub struct Tsc {
    sandbox: Sandbox,
    node: PathBuf,
    /// The compiler: a script for Node, or a program by itself.
    tsc: PathBuf,
    native: bool,
    readable: Vec<PathBuf>,
    versions: String,
}

impl Tsc {
    /// Finds the compiler (`tsc` if given, else `CODELSI_TSC`, else `.tools` and `node_modules` from here upwards, else
    /// `PATH`) and Node (`node` if given, else `PATH`), and asks both for their versions inside the sandbox.
    pub fn find(sandbox: Sandbox, tsc: Option<PathBuf>, node: Option<PathBuf>) -> Result<Self> {
        let node = node.or_else(|| on_path("node"));
        let node = node.ok_or_else(|| {
            Error::op("tsc judge", "no `node` on PATH; install Node 20, or use --judge embedded")
        })?;
        let tsc = tsc
            .or_else(|| std::env::var_os("CODELSI_TSC").map(PathBuf::from))
            .or_else(near)
            .or_else(|| on_path("tsc"));
        let tsc = tsc.ok_or_else(|| {
            Error::op("tsc judge", "no `tsc` found; npm install typescript@5.3.3, name it in CODELSI_TSC, or use --judge embedded")
        })?;
        let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
        let (node, script) = (real(&node)?, real(&tsc)?);
        let tsc = compiled(&script).unwrap_or(script);
        let mut readable = system_runtime();
        readable.extend(
            ["/usr/share/nodejs", "/etc/ssl/openssl.cnf"]
                .map(PathBuf::from)
                .into_iter()
                .filter(|p| p.exists()),
        );
        readable.push(node.clone());
        readable.push(package(&tsc));
        let native = !std::fs::read(&tsc).map_err(|e| Error::io(&tsc, e))?.starts_with(b"#!");
        let mut judge = Tsc { sandbox, node, tsc, native, readable, versions: String::new() };
        judge.versions = judge.ask_versions()?;
        Ok(judge)
    }

    fn ask_versions(&self) -> Result<String> {
        let empty = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
        let ask = |task: Task, path: &Path| {
            let outcome = self.sandbox.run(task, empty.path(), &self.readable, Limits::multipl_e())?;
            let said = outcome.stdout.printable().trim().to_string();
            if outcome.end == End::Exited(0) && !said.is_empty() {
                return Ok(said.trim_start_matches("Version ").to_string());
            }
            let why = outcome.stderr.printable();
            let why =
                why.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_string();
            Err(Error::op("tsc judge", format!("{} --version fails in the sandbox: {why}", path.display())))
        };
        let tsc = ask(self.tsc_task(&["--version"]), &self.tsc)?;
        let node = ask(self.node_task("--version"), &self.node)?;
        Ok(format!("TypeScript {tsc}, Node {}", node.trim_start_matches('v')))
    }

    fn tsc_task(&self, args: &[&str]) -> Task {
        let args = args.iter().map(|arg| arg.to_string());
        match self.native {
            true => Task::Exec { program: self.tsc.clone(), args: args.collect(), stdin: String::new() },
            false => {
                let script = self.tsc.display().to_string();
                let args = std::iter::once(script).chain(args).collect();
                Task::Exec { program: self.node.clone(), args, stdin: String::new() }
            }
        }
    }

    fn node_task(&self, arg: &str) -> Task {
        Task::Exec { program: self.node.clone(), args: vec![arg.into()], stdin: String::new() }
    }

    /// Node, which runs programs and, unless it is native, the compiler.
    pub(super) fn node(&self) -> &Path {
        &self.node
    }

    pub(super) fn run(&self, task: Task, folder: &Path, limits: Limits) -> Result<Outcome> {
        self.sandbox.run(task, folder, &self.readable, limits)
    }

    /// The compiler as a library, which a native one is not.
    fn library(&self) -> Option<PathBuf> {
        let library = self.tsc.parent()?.parent()?.join("lib/typescript.js");
        (!self.native && library.is_file()).then_some(library)
    }

    /// How the compiler ends over each of the programs, all in one process; nothing for those to be compiled alone.
    ///
    /// # Errors
    /// When the disk or the sandbox fails.
    pub fn compile_together(&self, programs: &[&Program]) -> Result<Vec<Option<Compiled>>> {
        match self.library() {
            Some(library) if programs.len() > 1 => together::compile(self, &library, programs),
            _ => Ok(programs.iter().map(|_| None).collect()),
        }
    }

    /// Runs what was compiled to `file.js` in a folder.
    fn run_program(&self, folder: &Path, compiling: f64) -> Result<Judgement> {
        let ran = self.run(self.node_task("file.js"), folder, Limits::multipl_e())?;
        let (status, message) = (classify(&ran), complaint(&ran, folder));
        Ok(Judgement { status, message, seconds: compiling + ran.seconds })
    }

    /// The verdict of a program that was compiled with others.
    fn compiled(&self, program: &Program, compiled: Compiled) -> Result<Judgement> {
        let Some(code) = compiled.code.filter(|_| compiled.accepted) else {
            let message = shortened(&compiled.said);
            return Ok(Judgement { status: Status::SyntaxError, message, seconds: compiled.seconds });
        };
        let folder = super::program_folder(program)?;
        let file = folder.path().join("file.js");
        std::fs::write(&file, code).map_err(|e| Error::io(&file, e))?;
        self.run_program(folder.path(), compiled.seconds)
    }
}

impl Judge for Tsc {
    fn languages(&self) -> &'static [&'static str] {
        &["ts"]
    }

    fn describe(&self) -> String {
        format!("tsc: tsc --target esnext, then node, 15 s each; {}", self.versions)
    }

    fn judge(&self, program: &Program) -> Result<Judgement> {
        let folder = super::program_folder(program)?;
        let task = || self.tsc_task(&["--target", "esnext", "file.ts"]);
        let compile = || self.run(task(), folder.path(), Limits::multipl_e());
        let mut compiled = compile()?;
        if died(&compiled) {
            // On a machine short of memory or processes that need not be the program's fault.
            compiled = compile()?;
        }
        if compiled.end != End::Exited(0) {
            return Ok(Judgement {
                status: Status::SyntaxError,
                message: complaint(&compiled, folder.path()),
                seconds: compiled.seconds,
            });
        }
        self.run_program(folder.path(), compiled.seconds)
    }

    fn together(&self) -> usize {
        if self.library().is_some() { together::MOST } else { 1 }
    }

    fn judge_each(
        &self,
        programs: &[&Program],
        each: &mut dyn FnMut(usize, Judgement) -> Result<()>,
    ) -> Result<()> {
        let compiled = self.compile_together(programs)?;
        for (i, (program, compiled)) in programs.iter().zip(compiled).enumerate() {
            let judgement = match compiled {
                Some(compiled) => self.compiled(program, compiled)?,
                None => self.judge(program)?,
            };
            each(i, judgement)?;
        }
        Ok(())
    }

    fn reaches_end(&self, program: &Program) -> Result<bool> {
        // A fresh folder: the first run may have rewritten the program.
        let folder = super::program_folder(program)?;
        let word = super::word();
        let job = witness::Job { node: self.node.clone(), tests_at: program.tests_at, word: word.clone() };
        let outcome = self.run(Task::Witness(job), folder.path(), Limits::multipl_e())?;
        Ok(outcome.stdout.contains(&word))
    }
}

/// Whether the compiler ended without a word on the program: neither accepted, nor refused, nor out of time.
fn died(compiled: &Outcome) -> bool {
    match compiled.end {
        End::Exited(0) | End::Stopped(Limit::Wall | Limit::Cpu) => false,
        End::Exited(_) | End::Stopped(_) => !compiled.stdout.contains("error TS"),
    }
}

/// A compiler installed beside the project or above it; the first place is where `tools/test.sh` puts the pinned one.
fn near() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let places = [".tools/typescript/node_modules", ".tools/node_modules", "node_modules"];
    let tsc = |folder: &Path| places.map(|place| folder.join(place).join(".bin/tsc"));
    here.ancestors().flat_map(tsc).find(|file| file.is_file())
}

/// From TypeScript 7 on the script only starts a program in a package beside its own; it finds its libraries by its own
/// path, so it is started without the detour.
fn compiled(script: &Path) -> Option<PathBuf> {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let modules = script.ancestors().find(|folder| folder.ends_with("node_modules"))?;
    let program = modules.join(format!("@typescript/typescript-linux-{arch}/lib/tsc"));
    (script.parent()?.parent()?.ends_with("typescript") && program.is_file()).then_some(program)
}

/// What the compiler reads: the package it is in.
fn package(tsc: &Path) -> PathBuf {
    let package = tsc.ancestors().find(|folder| folder.join("package.json").is_file());
    package.unwrap_or(tsc).to_path_buf()
}
