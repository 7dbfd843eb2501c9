//! Judges for other languages than TypeScript, with the tools found on the machine.
//!
//! MultiPL-E's rule: a compiler that refuses, or is out of time, is `SyntaxError`; then the program runs 15 s. A compiler
//! may remove the files that it makes; a program may not.

mod rules;
mod tuples;

pub use rules::{ALL, Rule};

use super::{Judge, Judgement, Status, classify, on_path, word};
use crate::problem::Program;
use crate::sandbox::{End, Limits, Outcome, Sandbox, Task, system_runtime};
use codelsi_engine::{At, Error, Result};
use rules::Run;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Builds and runs with the tools of one language.
pub struct Toolchain {
    rule: &'static Rule,
    sandbox: Sandbox,
    /// By the names that the rule uses.
    tools: BTreeMap<&'static str, PathBuf>,
    readable: Vec<PathBuf>,
    versions: String,
    /// The classes that Java problems import.
    tuples: Option<TempDir>,
}

impl Toolchain {
    /// Finds the tools on PATH, and asks them for their versions inside the sandbox.
    ///
    /// # Errors
    /// Names a tool that is missing or does not run.
    pub fn find(sandbox: Sandbox, rule: &'static Rule) -> Result<Self> {
        let mut readable = system_runtime();
        readable.extend(rule.readable.iter().map(PathBuf::from).filter(|path| path.exists()));
        let mut tools = BTreeMap::new();
        for tool in rule.tools() {
            let (program, home) = locate(tool).at(format!("{} judge", rule.name))?;
            readable.push(program.clone());
            readable.extend(home);
            tools.insert(tool, program);
        }
        let mut judge = Toolchain { rule, sandbox, tools, readable, versions: String::new(), tuples: None };
        judge.versions = judge.ask_versions().at(format!("{} judge", rule.name))?;
        if rule.language == "java" {
            judge.tuples = Some(judge.build_tuples()?);
            judge.readable.extend(judge.tuples.iter().map(|folder| folder.path().to_owned()));
        }
        let idle = judge.run(rule.idle)?;
        match idle.end.end {
            End::Exited(0) if idle.built => Ok(judge),
            _ => {
                let said = idle.end.stderr.printable();
                let why = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
                let message = format!("the tools do not work in the sandbox: {why}; choose another judge");
                Err(Error::op(rule.name, message))
            }
        }
    }

    fn ask_versions(&self) -> Result<String> {
        let empty = temp()?;
        let ask = |(name, program): (&&str, &PathBuf)| {
            let task = exec(program, &["--version"]);
            let outcome = self.sandbox.run(task, empty.path(), &self.readable, Limits::multipl_e())?;
            let (said, wrong) = (outcome.stdout.printable(), outcome.stderr.printable());
            let first = |text: &str| text.lines().find(|line| !line.trim().is_empty()).map(str::to_owned);
            match outcome.end {
                End::Exited(0) => {
                    first(&said).ok_or_else(|| Error::new(format!("{name} --version says nothing")))
                }
                _ => {
                    let why = first(&wrong).unwrap_or_default();
                    Err(Error::new(format!("{} --version fails in the sandbox: {why}", program.display())))
                }
            }
        };
        Ok(self.tools.iter().map(ask).collect::<Result<Vec<_>>>()?.join("; "))
    }

    fn build_tuples(&self) -> Result<TempDir> {
        let folder = temp()?;
        let sources = tuples::sources();
        let package = folder.path().join("org/javatuples");
        fs::create_dir_all(&package).map_err(|e| Error::io(&package, e))?;
        for (name, text) in &sources {
            write(&folder.path().join(name), text)?;
        }
        let names = sources.iter().map(|(name, _)| name.as_str());
        let args: Vec<&str> = ["-d", "."].into_iter().chain(names).collect();
        let built = self.compile(exec(&self.tools["javac"], &args), folder.path())?;
        match built.end {
            End::Exited(0) => Ok(folder),
            _ => Err(Error::op(
                "java judge",
                format!("javac refuses our own classes: {}", built.stderr.printable()),
            )),
        }
    }

    fn compile(&self, task: Task, folder: &Path) -> Result<Outcome> {
        self.sandbox.run(task, folder, &self.readable, Limits { removes: true, ..Limits::multipl_e() })
    }

    /// The rule's command as a task.
    fn task(&self, command: &[&'static str]) -> Task {
        let tuples =
            self.tuples.as_ref().map(|folder| folder.path().display().to_string()).unwrap_or_default();
        let args = command[1..].iter().map(|arg| arg.replace("TUPLES", &tuples)).collect();
        Task::Exec { program: self.tools[command[0]].clone(), args, stdin: String::new() }
    }

    /// Builds and runs the program `text`.
    fn run(&self, text: &str) -> Result<Ran> {
        let folder = temp()?;
        write(&folder.path().join(self.rule.file), text)?;
        let mut seconds = 0.0;
        if let Some(build) = self.rule.build {
            let built = self.compile(self.task(build), folder.path())?;
            seconds = built.seconds;
            if built.end != End::Exited(0) {
                return Ok(Ran { built: false, end: built, seconds });
            }
        }
        let end = match self.rule.run {
            Run::Tool(command) => {
                self.sandbox.run(self.task(command), folder.path(), &self.readable, Limits::multipl_e())
            }
            Run::Built => self.run_built(&folder.path().join("program")),
        }?;
        Ok(Ran { built: true, seconds: seconds + end.seconds, end })
    }

    /// Runs what a compiler made, from a folder where it cannot write: what can be written cannot be executed.
    fn run_built(&self, built: &Path) -> Result<Outcome> {
        let (programs, folder) = (temp()?, temp()?);
        let program = programs.path().join("program");
        let io = |e| Error::io(built, e);
        fs::copy(built, &program).map_err(io)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(io)?;
        let mut readable = self.readable.clone();
        readable.push(programs.path().to_owned());
        self.sandbox.run(exec(&program, &[]), folder.path(), &readable, Limits::multipl_e())
    }
}

/// What became of a program.
struct Ran {
    /// False where the compiler refused it.
    built: bool,
    /// Of the program, or of the compiler.
    end: Outcome,
    seconds: f64,
}

impl Judge for Toolchain {
    fn languages(&self) -> &'static [&'static str] {
        std::slice::from_ref(&self.rule.language)
    }

    fn describe(&self) -> String {
        let command = |command: &[&str]| command.join(" ");
        let run = if let Run::Tool(run) = self.rule.run { command(run) } else { "program".into() };
        let build = self.rule.build.map(|build| command(build) + ", then ").unwrap_or_default();
        format!("{}: {build}{run}, 15 s each; {}", self.rule.name, self.versions)
    }

    fn judge(&self, program: &Program) -> Result<Judgement> {
        let ran = self.run(&program.text)?;
        let status = match classify(&ran.end) {
            _ if !ran.built => Status::SyntaxError,
            Status::AssertionError | Status::ReferenceError if !self.rule.tells_exceptions => {
                Status::Exception
            }
            // A compiled program that speaks of syntax is no error of syntax.
            Status::SyntaxError if self.rule.build.is_some() => Status::Exception,
            status => status,
        };
        Ok(Judgement { status, seconds: ran.seconds })
    }

    fn reaches_end(&self, program: &Program) -> Result<bool> {
        let word = word();
        let ran = self.run(&self.rule.with_ending(&program.text, program.tests_at, &word))?;
        Ok(ran.built && ran.end.stdout.contains(&word))
    }
}

/// The program behind a tool's name, and the folder that it is at home in if that says more.
fn locate(tool: &str) -> Result<(PathBuf, Option<PathBuf>)> {
    let missing = || Error::new(format!("no `{tool}` on PATH; install it, or choose another judge"));
    let found = on_path(tool).ok_or_else(missing)?;
    let Some((args, read)) = rules::question(tool) else {
        return Ok((found.canonicalize().map_err(|e| Error::io(&found, e))?, None));
    };
    let output = Command::new(&found).args(args).output().map_err(|e| Error::io(&found, e))?;
    let answer = read(&String::from_utf8_lossy(&output.stdout)).filter(|_| output.status.success());
    let (program, home) = answer.ok_or_else(|| Error::io(&found, "does not say where it is at home"))?;
    Ok((program, Some(home)))
}

fn exec(program: &Path, args: &[&str]) -> Task {
    let args = args.iter().map(|arg| arg.to_string()).collect();
    Task::Exec { program: program.to_owned(), args, stdin: String::new() }
}

fn temp() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("codelsi-").tempdir();
    folder.map_err(|e| Error::io(std::env::temp_dir(), e))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::io(path, e))
}
