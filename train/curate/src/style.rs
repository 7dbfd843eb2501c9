//! The styles of instruction; `styles` makes the task of each.

use crate::language::Language;
use codelsi_engine::{Error, Result};
use codelsi_model::template::PromptTemplate;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A style of instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstructionStyle {
    /// Given the description and the signature, write the code.
    #[default]
    Write,
    /// Given the comment, the head and the first statements, complete the code.
    Complete,
    /// Given the code, explain it as its comment does.
    Explain,
    /// Given a less readable equivalent, write the code.
    Refactor,
    /// Given the code with a bug, fix it.
    Fix,
    /// Given the code, write a test of the examples in its comment.
    Test,
    /// Given the comment and the head as a source file has them, and no instruction, continue with the body.
    Continue,
    /// Given what stands before and after a hole in a source file, and no instruction, fill it.
    Infill,
}

impl InstructionStyle {
    /// All styles.
    pub const ALL: [InstructionStyle; 8] = [
        InstructionStyle::Write,
        InstructionStyle::Complete,
        InstructionStyle::Explain,
        InstructionStyle::Refactor,
        InstructionStyle::Fix,
        InstructionStyle::Test,
        InstructionStyle::Continue,
        InstructionStyle::Infill,
    ];

    /// The name on the command line and in rows.
    pub fn name(self) -> &'static str {
        match self {
            InstructionStyle::Write => "write",
            InstructionStyle::Complete => "complete",
            InstructionStyle::Explain => "explain",
            InstructionStyle::Refactor => "refactor",
            InstructionStyle::Fix => "fix",
            InstructionStyle::Test => "test",
            InstructionStyle::Continue => "continue",
            InstructionStyle::Infill => "infill",
        }
    }

    /// The reason counted when an item gives no row of this style.
    pub fn missing_reason(self) -> &'static str {
        match self {
            InstructionStyle::Write => "no-comment",
            InstructionStyle::Complete => "too-few-statements",
            InstructionStyle::Explain => "too-little-said",
            InstructionStyle::Refactor => "nothing-to-refactor",
            InstructionStyle::Fix => "nothing-to-break",
            InstructionStyle::Test => "no-example",
            InstructionStyle::Continue => "not-a-function",
            InstructionStyle::Infill => "no-hole",
        }
    }

    /// Returns whether the style supports `language`: most styles read the syntax tree of TypeScript and JavaScript.
    pub fn supports(self, language: Language) -> bool {
        match self {
            InstructionStyle::Write | InstructionStyle::Explain | InstructionStyle::Infill => true,
            _ => matches!(language, Language::TypeScript | Language::JavaScript),
        }
    }

    /// The prompt template of the style's rows, where it is not that of the training run.
    pub fn template(self) -> Option<PromptTemplate> {
        (self == InstructionStyle::Continue).then_some(PromptTemplate::Plain)
    }

    /// Returns whether the answer is the item's code, so that the imports and signatures it uses help.
    pub fn answers_with_code(self) -> bool {
        use InstructionStyle::{Continue, Explain, Infill, Test};
        !matches!(self, Explain | Test | Continue | Infill)
    }

    pub(crate) fn is_write(&self) -> bool {
        *self == InstructionStyle::Write
    }
}

impl FromStr for InstructionStyle {
    type Err = Error;

    fn from_str(name: &str) -> Result<InstructionStyle> {
        let names = || InstructionStyle::ALL.map(InstructionStyle::name).join(", ");
        let known = InstructionStyle::ALL.into_iter().find(|style| style.name() == name);
        known.ok_or_else(|| Error::new(format!("no style `{name}`; there are {}", names())))
    }
}
