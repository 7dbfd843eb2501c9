//! Training rows: conversations read from the forms that people have them in, and their split into training and
//! validation.

mod conversation;
mod form;
mod table;
mod value;

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::message::{Message, Role};
use codelsi_model::template::PromptTemplate;
use std::collections::BTreeMap;
use std::path::Path;

use value::join_paragraphs;
pub(crate) use value::listed;

/// A conversation to learn from: the loss is on its assistant's messages, of which the last message is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub messages: Vec<Message>,
    /// The prompt template that the row itself names, instead of the run's.
    pub template: Option<PromptTemplate>,
    /// Index of the row in its file, counted from 0 over all rows, those without an answer included.
    pub row: usize,
}

/// A question to the model and the answer to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// The instruction; in the first turn after the system text, if there is one, and a blank line.
    pub instruction: String,
    pub answer: &'a str,
}

impl Example {
    /// A conversation of one turn.
    pub fn new(instruction: impl Into<String>, output: impl Into<String>) -> Example {
        let message = |role, content| Message { role, content };
        let messages = vec![message(Role::User, instruction.into()), message(Role::Assistant, output.into())];
        Example { messages, template: None, row: 0 }
    }

    /// The conversation as turns: user and assistant in alternation, with at most one system text, in front. `None` if
    /// it goes another way.
    pub fn turns(&self) -> Option<Vec<Turn<'_>>> {
        let (system, rest) = match self.messages.split_first()? {
            (Message { role: Role::System, content }, rest) => (Some(content), rest),
            _ => (None, &self.messages[..]),
        };
        let (pairs, odd) = rest.as_chunks::<2>();
        let is_turn =
            |[user, assistant]: &[Message; 2]| (user.role, assistant.role) == (Role::User, Role::Assistant);
        if !odd.is_empty() || !pairs.iter().all(is_turn) {
            return None;
        }
        let mut turns: Vec<Turn> = pairs
            .iter()
            .map(|[user, assistant]| Turn { instruction: user.content.clone(), answer: &assistant.content })
            .collect();
        if let Some(system) = system {
            let first = turns.first_mut()?;
            first.instruction = join_paragraphs(system, &first.instruction);
        }
        Some(turns)
    }
}

/// The rows of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    pub examples: Vec<Example>,
    /// Number of rows in the file.
    pub rows: usize,
    /// Rows left out because an answer is empty or white space, or because no message is the assistant's.
    pub without_answer: usize,
    /// Keys that are no part of a conversation, with the number of rows that have them.
    pub unused_keys: BTreeMap<String, usize>,
}

/// Reads training rows: JSON Lines or a JSON array, plain or gzip-compressed, or Parquet. A row is one of
///
/// - a prompt and its answer: `instruction` and `output` (Alpaca, with `input`, `system` and `history`), or another pair
///   of the table in `form.rs`;
/// - a conversation: `messages` of `{role, content}` (OpenAI), or `conversations` of `{from, value}` (ShareGPT).
///
/// A row may name its own prompt template as `template`: code to be continued, for example, is `plain` among instructions.
///
/// # Errors
/// A file that cannot be read, holds no row, or holds one in no form or in several; the message names file and line.
pub fn read(path: impl AsRef<Path>) -> Result<Dataset> {
    read_rows(path.as_ref(), false)
}

/// Reads training rows; those whose answer is blank are among them if `blank_answers`.
pub(crate) fn read_rows(path: &Path, blank_answers: bool) -> Result<Dataset> {
    let mut dataset = Dataset::default();
    for (row, (place, object)) in table::read(path)?.into_iter().enumerate() {
        let parsed = form::parse(&object).map_err(|e| Error::io(path, format!("{place}: {e}")))?;
        for key in parsed.unused_keys {
            *dataset.unused_keys.entry(key).or_default() += 1;
        }
        let keep = |messages: &Vec<Message>| blank_answers || !has_blank_answer(messages);
        match up_to_last_answer(parsed.messages).filter(keep) {
            Some(messages) => dataset.examples.push(Example { messages, template: parsed.template, row }),
            None => dataset.without_answer += 1,
        }
        dataset.rows += 1;
    }
    Ok(dataset)
}

/// Returns the messages up to the assistant's last one, after which there is no loss. `None` without an answer.
fn up_to_last_answer(mut messages: Vec<Message>) -> Option<Vec<Message>> {
    let last = messages.iter().rposition(|message| message.role == Role::Assistant)?;
    messages.truncate(last + 1);
    Some(messages)
}

fn has_blank_answer(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.role == Role::Assistant && message.content.trim().is_empty())
}

/// Splits `rows` into `(training, validation)`, with `validation` rows drawn by `seed`; both parts keep the file's
/// order.
///
/// # Errors
/// When no row is left to train on.
pub fn split(rows: Vec<Example>, validation: usize, seed: u64) -> Result<(Vec<Example>, Vec<Example>)> {
    if validation >= rows.len() {
        return Err(Error::new(format!(
            "{validation} validation rows leave none of {} to train on; ask for fewer",
            rows.len()
        )));
    }
    let mut held_out = vec![false; rows.len()];
    for index in
        permutation(rows.len(), RngKey { seed, step: 0, site: SPLIT_SITE }).into_iter().take(validation)
    {
        held_out[index] = true;
    }
    let (validation, training): (Vec<_>, Vec<_>) =
        rows.into_iter().zip(held_out).partition(|(_, held)| *held);
    let rows_of = |part: Vec<(Example, bool)>| part.into_iter().map(|(row, _)| row).collect();
    Ok((rows_of(training), rows_of(validation)))
}

/// Returns at most `count` of the rows at even distances, in their order.
pub fn take_evenly<T>(rows: Vec<T>, count: usize) -> Vec<T> {
    let (all, count) = (rows.len(), count.min(rows.len()));
    let chosen = |i: usize| (i + 1) * count / all > i * count / all;
    rows.into_iter().enumerate().filter(|(i, _)| chosen(*i)).map(|(_, row)| row).collect()
}

/// Sites of the random numbers drawn here (see [`RngKey`]); layers and linears use small numbers.
const SPLIT_SITE: u32 = u32::MAX;
pub(crate) const ORDER_SITE: u32 = u32::MAX - 1;
pub(crate) const REPLAY_SITE: u32 = u32::MAX - 2;

/// A random permutation of `0..n`: the indices sorted by a random number drawn for each.
pub(crate) fn permutation(n: usize, key: RngKey) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_cached_key(|&i| (key.words(i as u32, 0), i));
    order
}

#[cfg(test)]
mod tests;
