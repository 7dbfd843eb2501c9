//! Judges: whether a program is solved, by the rule of MultiPL-E.
//!
//! Two judges share one rule (`classify`), one sandbox and one guard: a program that counts as solved is run a
//! second time with its tests in a scope it cannot reach into. If those do not run to their end (it ended the process
//! before them, replaced `assert`, replaced the tests), the verdict stands, as the rule has it, and is flagged.
//! That is proof against programs that cheat the tests, not against one written to deceive this very guard.

pub mod embedded;
mod strip;
pub mod together;
pub mod toolchain;
pub mod tsc;
pub mod verdicts;
pub(crate) mod witness;

use crate::problem::Program;
use crate::sandbox::{End, Limit, Outcome, Sandbox};
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use toolchain::{Rule, Toolchain};

/// MultiPL-E's statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    #[serde(rename = "OK")]
    Ok,
    AssertionError,
    SyntaxError,
    ReferenceError,
    Exception,
    Timeout,
}

/// How often each status was given.
pub type Counts = BTreeMap<Status, usize>;

/// What one program earned.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub status: Status,
    /// What compiler or runtime had against it, in a few printable lines; empty where it is solved.
    pub message: String,
    /// Compiling and running, wall time.
    pub seconds: f64,
}

/// A way of deciding whether a program is solved.
pub trait Judge: Sync {
    /// The languages that it takes, as problems have them.
    fn languages(&self) -> &'static [&'static str];

    /// One line for protocols and reports: the rule, the limits, the versions.
    fn describe(&self) -> String;

    /// The verdict of the rule. An error is the judge's own, never the program's.
    fn judge(&self, program: &Program) -> Result<Judgement>;

    /// How many programs [`Judge::judge_each`] is best given.
    fn together(&self) -> usize {
        1
    }

    /// The same verdict of each program; `each` hears of it by the program's place.
    fn judge_each(
        &self,
        programs: &[&Program],
        each: &mut dyn FnMut(usize, Judgement) -> Result<()>,
    ) -> Result<()> {
        programs.iter().enumerate().try_for_each(|(i, program)| each(i, self.judge(program)?))
    }

    /// Whether the tests run to their end with a genuine `assert` when the program cannot interfere.
    fn reaches_end(&self, program: &Program) -> Result<bool>;
}

/// Which judge, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Tsc,
    Embedded,
    Javascript,
    Python,
    Java,
    Cpp,
    Rust,
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name() == s).ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).join(", ");
            Error::new(format!("judge `{s}` is unknown; choose one of {names}"))
        })
    }
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::Tsc, Kind::Embedded, Kind::Javascript, Kind::Python, Kind::Java, Kind::Cpp, Kind::Rust];

    fn name(self) -> &'static str {
        match self {
            Kind::Tsc => "tsc",
            Kind::Embedded => "embedded",
            _ => self.rule().map_or("", |rule| rule.name),
        }
    }

    fn rule(self) -> Option<&'static Rule> {
        let at = (self as usize).checked_sub(Kind::Javascript as usize)?;
        toolchain::ALL.get(at).copied()
    }

    /// The judge of a language's problems where none is named: embedded where that will do.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_language(language: &str) -> Result<Self> {
        if embedded::LANGUAGES.contains(&language) {
            return Ok(Kind::Embedded);
        }
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.rule().is_some_and(|rule| rule.language == language));
        kind.ok_or_else(|| Error::new(format!("no judge takes problems in `{language}`")))
    }

    /// The judge, with its sandbox tested and its tools, if not given, found ([`tsc::Tsc::find`]).
    ///
    /// # Errors
    /// When the sandbox does not hold, or a tool is missing.
    pub fn open(self, tsc: Option<PathBuf>, node: Option<PathBuf>) -> Result<Box<dyn Judge>> {
        let sandbox = Sandbox::checked()?;
        Ok(match (self, self.rule()) {
            (_, Some(rule)) => Box::new(Toolchain::find(sandbox, rule)?),
            (Kind::Tsc, _) => Box::new(tsc::Tsc::find(sandbox, tsc, node)?),
            _ => Box::new(embedded::Embedded::new(sandbox)),
        })
    }
}

/// MultiPL-E's reading of a run, for a program that compiled.
fn classify(run: &Outcome) -> Status {
    match run.end {
        End::Stopped(Limit::Wall | Limit::Cpu) => Status::Timeout,
        End::Exited(0) => Status::Ok,
        _ if run.stderr.contains("ERR_ASSERTION") => Status::AssertionError,
        _ if run.stderr.contains("SyntaxError") => Status::SyntaxError,
        _ if run.stderr.contains("ReferenceError") => Status::ReferenceError,
        _ => Status::Exception,
    }
}

/// What is worth reading of a run that failed: the limit it met, or the lines in which its tools say what is wrong.
/// `folder`, whose name is new every time, is left out.
fn complaint(run: &Outcome, folder: &Path) -> String {
    match run.end {
        End::Exited(0) => return String::new(),
        End::Stopped(limit) => return format!("stopped: over its limit of {}", limit.name()),
        End::Exited(_) => {}
    }
    let inside = format!("{}/", folder.display());
    let [stdout, stderr] = [&run.stdout, &run.stderr].map(|stream| stream.printable().replace(&inside, ""));
    let said = shortened(if stderr.trim().is_empty() { &stdout } else { &stderr });
    if said.is_empty() { format!("ended with {:?} and no word", run.end) } else { said }
}

/// The lines that say what is wrong, and not too many.
fn shortened(said: &str) -> String {
    const LINES: usize = 8;
    const LETTERS: usize = 600;
    // Where in the stack, and which version, helps nobody.
    let noise =
        |line: &&str| line.trim().is_empty() || line.starts_with("    at ") || line.starts_with("Node.js v");
    let lines: Vec<&str> = said.lines().filter(|line| !noise(line)).take(LINES).collect();
    lines.join("\n").chars().take(LETTERS).collect()
}

/// A new folder with the program in `file.ts`; gone, with all that the program put there, when dropped.
fn program_folder(program: &Program) -> Result<tempfile::TempDir> {
    let folder = folder()?;
    write_program(folder.path(), program)?;
    Ok(folder)
}

/// A new, empty folder.
fn folder() -> Result<tempfile::TempDir> {
    let new = tempfile::Builder::new().prefix("codelsi-").tempdir();
    new.map_err(|e| Error::io(std::env::temp_dir(), e))
}

fn write_program(folder: &Path, program: &Program) -> Result<()> {
    let file = folder.join("file.ts");
    std::fs::write(&file, &program.text).map_err(|e| Error::io(&file, e))
}

/// The first program of that name on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A word that no program can guess.
fn word() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
