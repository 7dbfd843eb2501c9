//! The judges by the names that the command line uses.

use super::embedded::{self, EmbeddedJudge};
use super::judgement::Judge;
use super::toolchain::{self, Rule, ToolchainJudge};
use super::tsc::TscJudge;
use crate::sandbox::Sandbox;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A judge, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeKind {
    Tsc,
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
    const ALL: [JudgeKind; 7] = [
        JudgeKind::Tsc,
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
            JudgeKind::Embedded => "embedded",
            _ => self.rule().map_or("", |rule| rule.name),
        }
    }

    fn rule(self) -> Option<&'static Rule> {
        let index = (self as usize).checked_sub(JudgeKind::Javascript as usize)?;
        toolchain::ALL.get(index).copied()
    }

    /// Returns the default judge for problems in a language: the embedded one if it accepts them.
    ///
    /// # Errors
    /// When no judge accepts the language.
    pub fn of_language(language: &str) -> Result<Self> {
        if embedded::LANGUAGES.contains(&language) {
            return Ok(JudgeKind::Embedded);
        }
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
            _ => Box::new(EmbeddedJudge::new(sandbox)),
        })
    }
}
