//! The judges by the names that the command line uses, and the choice among them.

use super::embedded::{self, EmbeddedJudge};
use super::judgement::{Judge, Judgement};
use super::node::NodeJudge;
use super::toolchain::{self, Rule, ToolchainJudge};
use super::tsc::TscJudge;
use crate::problem::CandidateProgram;
use crate::sandbox::Sandbox;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A judge, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeKind {
    Tsc,
    Node,
    Embedded,
    Javascript,
    Python,
    Java,
    Cpp,
    Rust,
}

impl std::str::FromStr for JudgeKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        JudgeKind::ALL.into_iter().find(|kind| kind.name() == s).ok_or_else(|| {
            let names = JudgeKind::ALL.map(JudgeKind::name).join(", ");
            Error::new(format!("judge `{s}` is unknown; choose one of {names}"))
        })
    }
}

impl JudgeKind {
    const ALL: [JudgeKind; 8] = [
        JudgeKind::Tsc,
        JudgeKind::Node,
        JudgeKind::Embedded,
        JudgeKind::Javascript,
        JudgeKind::Python,
        JudgeKind::Java,
        JudgeKind::Cpp,
        JudgeKind::Rust,
    ];

    fn name(self) -> &'static str {
        match self {
            JudgeKind::Tsc => "tsc",
            JudgeKind::Node => "node",
            JudgeKind::Embedded => "embedded",
            _ => self.rule().map_or("", |rule| rule.name),
        }
    }

    fn rule(self) -> Option<&'static Rule> {
        let index = (self as usize).checked_sub(JudgeKind::Javascript as usize)?;
        toolchain::ALL.get(index).copied()
    }

    /// Returns the judge that runs programs by the tools of their language.
    ///
    /// # Errors
    /// When no judge accepts the language.
    fn of_language(language: &str) -> Result<Self> {
        let kind =
            JudgeKind::ALL.into_iter().find(|kind| kind.rule().is_some_and(|rule| rule.language == language));
        kind.ok_or_else(|| Error::new(format!("no judge takes problems in `{language}`")))
    }

    /// Tests the sandbox and returns the judge. Its tools are found on the machine if not given ([`TscJudge::find`],
    /// [`ToolchainJudge::find`]).
    ///
    /// # Errors
    /// When the sandbox does not hold, or a tool is missing.
    pub fn open(self, tsc: Option<PathBuf>, node: Option<PathBuf>) -> Result<Box<dyn Judge>> {
        let sandbox = Sandbox::checked()?;
        Ok(match (self, self.rule()) {
            (_, Some(rule)) => Box::new(ToolchainJudge::find(sandbox, rule)?),
            (JudgeKind::Tsc, _) => Box::new(TscJudge::find(sandbox, tsc, node)?),
            (JudgeKind::Node, _) => Box::new(NodeJudge::find(sandbox, node)?),
            _ => Box::new(EmbeddedJudge::new(sandbox)),
        })
    }
}

/// Tests the sandbox and returns the best judge of a language that this machine has: for TypeScript `tsc`, else `node`,
/// else `embedded`; for JavaScript `javascript`, else `embedded`; otherwise the only one. [`Judge::choice`] gives the reason.
///
/// # Errors
/// When the sandbox does not hold, no judge takes the language, or its tools are missing.
pub fn open_default(language: &str, tsc: Option<PathBuf>, node: Option<PathBuf>) -> Result<Box<dyn Judge>> {
    let chosen = |judge, reason| Ok(Box::new(Chosen { judge, reason }) as Box<dyn Judge>);
    let sandbox = Sandbox::checked()?;
    let embedded = || Box::new(EmbeddedJudge::new(sandbox));
    if language != "ts" {
        return match JudgeKind::of_language(language)?.open(tsc, node) {
            Ok(judge) => chosen(judge, format!("the judge of `{language}`")),
            Err(e) if embedded::LANGUAGES.contains(&language) => {
                chosen(embedded(), format!("Node is not found ({e})"))
            }
            Err(e) => Err(e),
        };
    }
    let no_compiler = match TscJudge::find(sandbox, tsc, node.clone()) {
        Ok(judge) => return chosen(Box::new(judge), "compiler and Node are found".into()),
        Err(e) => e,
    };
    match NodeJudge::find(sandbox, node) {
        Ok(judge) => chosen(Box::new(judge), format!("Node is found, the compiler is not ({no_compiler})")),
        Err(e) => chosen(embedded(), format!("neither compiler nor Node is found ({e})")),
    }
}

/// A judge that nobody named, with the reason for which it was chosen.
struct Chosen {
    judge: Box<dyn Judge>,
    reason: String,
}

impl Judge for Chosen {
    fn languages(&self) -> &'static [&'static str] {
        self.judge.languages()
    }

    fn describe(&self) -> String {
        self.judge.describe()
    }

    fn choice(&self) -> &str {
        &self.reason
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        self.judge.judge(program)
    }

    fn batch_size(&self) -> usize {
        self.judge.batch_size()
    }

    fn judge_batch(
        &self,
        programs: &[&CandidateProgram],
        on_judgement: &mut dyn FnMut(usize, Judgement) -> Result<()>,
    ) -> Result<()> {
        self.judge.judge_batch(programs, on_judgement)
    }

    fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
        self.judge.reaches_end(program)
    }
}
