//! Prompt templates, shared by training and evaluation, so that a model is prompted in the form it was trained on.

use codelsi_engine::{Error, Result};

/// A form of the prompt around an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptTemplate {
    /// The paper's instruction header, a newline, the instruction, a newline.
    Paper,
    /// Llama 2's chat form, `[INST] … [/INST]`.
    Inst,
    /// The instruction and a newline.
    Plain,
    /// The checkpoint's own chat template ([`crate::chat_template::ChatTemplate`]), with the instruction as a user's
    /// message.
    Chat,
}

impl PromptTemplate {
    /// All templates.
    pub const ALL: [PromptTemplate; 4] =
        [PromptTemplate::Paper, PromptTemplate::Inst, PromptTemplate::Plain, PromptTemplate::Chat];

    /// Returns the text before the answer, without `<s>`, which the tokenizer adds. For [`PromptTemplate::Chat`] it is
    /// the user's message, around which the chat template writes.
    pub fn wrap(self, instruction: &str) -> String {
        match self {
            PromptTemplate::Paper => format!(
                "Using the instruction context below, generate a typescript code that answers the question and explain it\n{instruction}\n"
            ),
            PromptTemplate::Inst => format!("[INST] {instruction} [/INST]"),
            PromptTemplate::Plain => format!("{instruction}\n"),
            PromptTemplate::Chat => instruction.to_string(),
        }
    }

    /// True if a conversation of several turns is each turn's form after the other.
    pub fn has_turns(self) -> bool {
        self == PromptTemplate::Inst
    }

    /// Name on the command line and in recipes.
    pub fn name(self) -> &'static str {
        match self {
            PromptTemplate::Paper => "paper",
            PromptTemplate::Inst => "inst",
            PromptTemplate::Plain => "plain",
            PromptTemplate::Chat => "chat",
        }
    }
}

impl std::str::FromStr for PromptTemplate {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        PromptTemplate::ALL.into_iter().find(|t| t.name() == s).ok_or_else(|| {
            Error::new(format!("prompt template `{s}` is unknown; choose paper, inst, plain or chat"))
        })
    }
}
