//! Judges for languages other than TypeScript, with the tools found on the machine.
//!
//! MultiPL-E's rule: a program that the compiler refuses, or cannot compile in time, is `SyntaxError`; otherwise it
//! runs for at most 15 s. A compiler may remove the files that it makes; a program may not.

mod javatuples;
mod rewriting;
mod rules;

pub use rules::{ALL, Rule};

use super::diagnosis::{classify, diagnostics};
use super::guard::Guard;
use super::judgement::{Judge, Judgement, Status};
use super::node;
use super::program_folder::write;
use super::tools::{SandboxedTools, find_on_path};
use crate::problem::CandidateProgram;
use crate::sandbox::{ChildTask, ProcessOutput, ResourceLimits, Sandbox, Termination, system_runtime};
use codelsi_engine::{At, Error, Result, ScratchFolder};
use rules::{GuardedRun, RunCommand, launcher_query};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds and runs with the tools of one language.
pub struct ToolchainJudge {
    rule: &'static Rule,
    tools: SandboxedTools,
    /// Programs by the names that the rule uses.
    programs: BTreeMap<&'static str, PathBuf>,
    versions: String,
    /// The compiled classes that Java problems import.
    javatuples: Option<ScratchFolder>,
}

impl ToolchainJudge {
    /// Finds the tools on `PATH`, and asks them for their versions inside the sandbox.
    ///
    /// # Errors
    /// Names a tool that is missing or does not run.
    pub fn find(sandbox: Sandbox, rule: &'static Rule) -> Result<Self> {
        let mut readable = system_runtime();
        readable.extend(rule.readable.iter().map(PathBuf::from).filter(|path| path.exists()));
        let mut programs = BTreeMap::new();
        for tool in rule.tools() {
            let (program, home) = locate(tool).at(format!("{} judge", rule.name))?;
            readable.push(program.clone());
            readable.extend(home);
            programs.insert(tool, program);
        }
        let tools = SandboxedTools { sandbox, readable };
        let mut judge = ToolchainJudge { rule, tools, programs, versions: String::new(), javatuples: None };
        judge.versions = judge.ask_versions().at(format!("{} judge", rule.name))?;
        if rule.language == "java" {
            let javatuples = judge.build_javatuples()?;
            judge.tools.readable.push(javatuples.path().to_owned());
            judge.javatuples = Some(javatuples);
        }
        judge.check_tools()?;
        Ok(judge)
    }

    /// Runs a program that does nothing.
    fn check_tools(&self) -> Result<()> {
        let empty = self.run(self.rule.empty_program, "", ResourceLimits::multipl_e())?;
        if empty.compiled && empty.output.end == Termination::Exited(0) {
            return Ok(());
        }
        let cause = empty.message.lines().next().unwrap_or("they print nothing");
        let message = format!("the tools do not work in the sandbox: {cause}; choose another judge");
        Err(Error::op(self.rule.name, message))
    }

    fn ask_versions(&self) -> Result<String> {
        let empty = ScratchFolder::new()?;
        let ask = |(name, program): (&&str, &PathBuf)| {
            let task = ChildTask::exec(program, &["--version"]);
            let output = self.tools.run(task, empty.path(), ResourceLimits::multipl_e())?;
            let (stdout, stderr) = (output.stdout.printable(), output.stderr.printable());
            let first = |text: &str| text.lines().find(|line| !line.trim().is_empty()).map(str::to_owned);
            match output.end {
                Termination::Exited(0) => {
                    first(&stdout).ok_or_else(|| Error::new(format!("{name} --version prints nothing")))
                }
                _ => {
                    let cause = first(&stderr).unwrap_or_default();
                    Err(Error::new(format!("{} --version fails in the sandbox: {cause}", program.display())))
                }
            }
        };
        Ok(self.programs.iter().map(ask).collect::<Result<Vec<_>>>()?.join("; "))
    }

    fn build_javatuples(&self) -> Result<ScratchFolder> {
        let folder = ScratchFolder::new()?;
        let sources = javatuples::sources();
        let package = folder.path().join("org/javatuples");
        fs::create_dir_all(&package).map_err(|e| Error::io(&package, e))?;
        for (name, text) in &sources {
            write(&folder.path().join(name), text)?;
        }
        let names = sources.iter().map(|(name, _)| name.as_str());
        let args: Vec<&str> = ["-d", "."].into_iter().chain(names).collect();
        let compiled = self.compile(ChildTask::exec(&self.programs["javac"], &args), folder.path())?;
        match compiled.end {
            Termination::Exited(0) => Ok(folder),
            _ => Err(Error::op(
                "java judge",
                format!("javac refuses our own classes: {}", compiled.stderr.printable()),
            )),
        }
    }

    fn compile(&self, task: ChildTask, folder: &Path) -> Result<ProcessOutput> {
        let limits = ResourceLimits { may_remove_files: true, ..ResourceLimits::multipl_e() };
        self.tools.run(task, folder, limits)
    }

    /// Returns the task of a command of the rule.
    fn task(&self, command: &[&'static str], stdin: &str) -> ChildTask {
        let javatuples =
            self.javatuples.as_ref().map(|folder| folder.path().display().to_string()).unwrap_or_default();
        let args = command[1..].iter().map(|arg| arg.replace("TUPLES", &javatuples)).collect();
        ChildTask::Exec { program: self.programs[command[0]].clone(), args, stdin: stdin.into() }
    }

    /// Builds and runs the program `text`, with `stdin` on its standard input.
    fn run(&self, text: &str, stdin: &str, limits: ResourceLimits) -> Result<ProgramRun> {
        let folder = ScratchFolder::new()?;
        write(&folder.path().join(self.rule.file), text)?;
        let mut seconds = 0.0;
        if let Some(build) = self.rule.build {
            let output = self.compile(self.task(build, ""), folder.path())?;
            seconds = output.seconds;
            if output.end != Termination::Exited(0) {
                let message = diagnostics(&output, folder.path());
                return Ok(ProgramRun { compiled: false, output, message, seconds });
            }
        }
        let output = match self.rule.run {
            RunCommand::Tool(command) => self.tools.run(self.task(command, stdin), folder.path(), limits),
            RunCommand::Executable => self.run_executable(&folder.path().join("program"), stdin, limits),
        }?;
        let message = diagnostics(&output, folder.path());
        Ok(ProgramRun { compiled: true, seconds: seconds + output.seconds, message, output })
    }

    /// Runs candidate and tests in one process of ours, which has the nonce from its standard input.
    fn run_guarded_python(&self, program: &CandidateProgram, guard: &Guard) -> Result<ProcessOutput> {
        let folder = ScratchFolder::new()?;
        let (candidate, tests) = program.text.split_at(program.tests_at);
        let driver = include_str!("guarded.py");
        for (name, text) in [("candidate.py", candidate), ("tests.py", tests), ("guarded.py", driver)] {
            write(&folder.path().join(name), text)?;
        }
        self.tools.run(self.task(&["python3", "guarded.py"], &guard.nonce), folder.path(), Guard::limits())
    }

    /// Runs a copy of the compiled program from a folder where it cannot write: writable files cannot be executed.
    fn run_executable(&self, compiled: &Path, stdin: &str, limits: ResourceLimits) -> Result<ProcessOutput> {
        let (programs, folder) = (ScratchFolder::new()?, ScratchFolder::new()?);
        let program = programs.path().join("program");
        let io = |e| Error::io(compiled, e);
        fs::copy(compiled, &program).map_err(io)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(io)?;
        let mut readable = self.tools.readable.clone();
        readable.push(programs.path().to_owned());
        let tools = SandboxedTools { sandbox: self.tools.sandbox, readable };
        let task = ChildTask::Exec { program, args: Vec::new(), stdin: stdin.into() };
        tools.run(task, folder.path(), limits)
    }
}

/// The result of building and running one program.
struct ProgramRun {
    /// False if the compiler refused the program.
    compiled: bool,
    /// The output of the program, or of the compiler if it refused the program.
    output: ProcessOutput,
    message: String,
    /// Building and running, wall time.
    seconds: f64,
}

impl Judge for ToolchainJudge {
    fn languages(&self) -> &'static [&'static str] {
        std::slice::from_ref(&self.rule.language)
    }

    fn describe(&self) -> String {
        let command = |command: &[&str]| command.join(" ");
        let run = if let RunCommand::Tool(run) = self.rule.run { command(run) } else { "program".into() };
        let build = self.rule.build.map(|build| command(build) + ", then ").unwrap_or_default();
        format!("{}: {build}{run}, 15 s each; {}", self.rule.name, self.versions)
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let run = self.run(&program.text, "", ResourceLimits::multipl_e())?;
        let status = match classify(&run.output) {
            _ if !run.compiled => Status::SyntaxError,
            Status::AssertionError | Status::ReferenceError if !self.rule.distinguishes_exceptions => {
                Status::Exception
            }
            // A compiled program that prints "SyntaxError" has no syntax error.
            Status::SyntaxError if self.rule.build.is_some() => Status::Exception,
            status => status,
        };
        Ok(Judgement { status, message: run.message, seconds: run.seconds })
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        let guard = Guard::new(program);
        match &self.rule.guarded {
            GuardedRun::Node => node::reaches_end(&self.tools, &self.programs["node"], false, program),
            GuardedRun::Python => {
                let output = self.run_guarded_python(program, &guard)?;
                Ok(guard.is_held(&output))
            }
            GuardedRun::Rewritten(rewriting) => {
                let run = self.run(&rewriting.apply(program, &guard.nonce), &guard.nonce, Guard::limits())?;
                Ok(run.compiled && guard.is_held(&run.output))
            }
        }
    }
}

/// Returns the real program of a tool, and its installation folder if the tool is a launcher.
fn locate(tool: &str) -> Result<(PathBuf, Option<PathBuf>)> {
    let missing = || Error::new(format!("no `{tool}` on PATH; install it, or choose another judge"));
    let found = find_on_path(tool).ok_or_else(missing)?;
    let Some((args, parse)) = launcher_query(tool) else {
        return Ok((found.canonicalize().map_err(|e| Error::io(&found, e))?, None));
    };
    let output = Command::new(&found).args(args).output().map_err(|e| Error::io(&found, e))?;
    let location = parse(&String::from_utf8_lossy(&output.stdout)).filter(|_| output.status.success());
    let (program, home) =
        location.ok_or_else(|| Error::io(&found, "does not print its installation folder"))?;
    Ok((program, Some(home)))
}
