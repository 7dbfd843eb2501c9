//! The tokens of a text or of a training row.

use codelsi_engine::{Error, Result};
use codelsi_model::chat_template::ChatTemplate;
use codelsi_model::message::{Message, Role};
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_train::data::{self, Columns};
use codelsi_train::pack::{Encoder, IGNORE_INDEX};
use std::path::{Path, PathBuf};

/// A text, or a row of data files.
pub enum Input {
    /// A complete text, or with a template a prompt.
    Text(String, Option<PromptTemplate>),
    /// The row of this number, counted from 0, as training encodes it.
    Row { data: Vec<PathBuf>, columns: Columns, row: usize, template: PromptTemplate },
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// The token as the vocabulary spells it.
    pub piece: String,
    /// True if training learns to predict it; `None` in a text.
    pub in_loss: Option<bool>,
}

/// Encodes a text or a row with the tokenizer of a model folder.
///
/// # Errors
/// When the tokenizer or the data cannot be read, there is no such row, or the text cannot be spelled in the
/// vocabulary.
pub fn tokenize(model: &Path, input: &Input) -> Result<Vec<Token>> {
    let tokenizer = Tokenizer::load(model)?;
    let token = |id: u32, in_loss| Token { id, piece: tokenizer.piece(id).unwrap_or_default(), in_loss };
    match input {
        Input::Text(text, template) => {
            let ids = encode_text(model, &tokenizer, text, *template)?;
            Ok(ids.into_iter().map(|id| token(id, None)).collect())
        }
        Input::Row { data, columns, row, template } => {
            let dataset = data::read_all(data, columns, false)?;
            let data = data::place(data);
            let example = dataset.examples.iter().find(|example| example.row == *row).ok_or_else(|| {
                let what = match *row < dataset.rows {
                    true => format!("row {row} has no answer, so it is not trained on"),
                    false => format!("there is no row {row}: {} rows are counted from 0", dataset.rows),
                };
                Error::io(&data, what)
            })?;
            let encoder = Encoder::for_model(model, &tokenizer, *template, usize::MAX)?;
            let document = encoder.document(example)?.ok_or_else(|| {
                let name = template.name();
                Error::io(&data, format!("row {row} is a conversation that the template {name} cannot write"))
            })?;
            // A position's target is the next token.
            let in_loss = document.targets.iter().map(|&target| target != IGNORE_INDEX);
            let in_loss = std::iter::once(false).chain(in_loss);
            Ok(document.tokens.iter().zip(in_loss).map(|(&id, in_loss)| token(id, Some(in_loss))).collect())
        }
    }
}

fn encode_text(
    model: &Path,
    tokenizer: &Tokenizer,
    text: &str,
    template: Option<PromptTemplate>,
) -> Result<Vec<u32>> {
    match template {
        None => tokenizer.encode_complete(text),
        Some(PromptTemplate::Chat) => {
            let message = Message { role: Role::User, content: text.to_string() };
            ChatTemplate::require(model)?.encode_prompt(tokenizer, &[message])
        }
        Some(template) => tokenizer.encode(&template.wrap(text), true),
    }
}
