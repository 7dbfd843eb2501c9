//! Training rows: conversations read from the forms that people have them in, and their split into training and
//! validation.

mod columns;
mod conversation;
mod files;
mod form;
mod hole;
mod keys;
mod table;
mod value;

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::message::{Message, Role};
use codelsi_model::template::PromptTemplate;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::file_counts::FileCounts;
pub use columns::Columns;
pub use hole::Hole;
use value::join_paragraphs;
pub(crate) use value::listed;

/// A conversation to learn from: the loss is on its assistant's messages, of which the last message is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub messages: Vec<Message>,
    /// The text around a hole, which the one message fills; `None` for a conversation.
    pub hole: Option<Hole>,
    /// The prompt template that the row itself names, instead of the run's.
    pub template: Option<PromptTemplate>,
    /// Number of the row, counted from 0 over all rows of all files, those without an answer included.
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
        Example { messages, hole: None, template: None, row: 0 }
    }

    /// The text that fills the hole of an infilling row.
    pub fn infilled(&self) -> Option<(&Hole, &str)> {
        Some((self.hole.as_ref()?, &self.messages.last()?.content))
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

/// The rows of files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    pub examples: Vec<Example>,
    /// Number of rows in the files.
    pub rows: usize,
    /// Keys that are no part of a conversation, with the number of rows that have them.
    pub unused_keys: BTreeMap<String, usize>,
    pub files: Vec<FileCounts>,
    /// Files in the folders that hold no rows.
    pub other_files: Vec<PathBuf>,
}

/// Reads training rows of a file or folder: JSON Lines or a JSON array, plain or gzip-compressed, or Parquet. A row is one of
///
/// - a prompt and its answer: `instruction` and `output` (Alpaca, with `input`, `system` and `history`), or another pair
///   of the table in `keys.rs`;
/// - a conversation: `messages` of `{role, content}` (OpenAI), or `conversations` of `{from, value}` (ShareGPT);
/// - a hole in a text: `prefix` and `suffix`, and `output`, which fills it.
///
/// A row may name its own prompt template as `template`: code to be continued, for example, is `plain` among instructions.
///
/// # Errors
/// As [`read_all`].
pub fn read(path: impl AsRef<Path>) -> Result<Dataset> {
    read_all(&[path], &Columns::default(), false)
}

/// Reads the training rows of files and folders, one after another, as [`read`] does; their columns are named by `columns`.
/// Rows whose answer is blank are among them if `blank_answers`.
///
/// # Errors
/// A file that cannot be read, holds no row, holds one in no form or in several, or lacks a column that is named; the message
/// names file and line. A folder without a file of rows, or a file that is there twice.
pub fn read_all(paths: &[impl AsRef<Path>], columns: &Columns, blank_answers: bool) -> Result<Dataset> {
    let files = files::find(paths)?;
    let mut dataset = Dataset { other_files: files.others, ..Dataset::default() };
    files.rows.into_iter().try_for_each(|path| dataset.read_file(path, columns, blank_answers))?;
    Ok(dataset)
}

impl Dataset {
    /// Appends the rows of a file.
    fn read_file(&mut self, path: PathBuf, columns: &Columns, blank_answers: bool) -> Result<()> {
        let rows = table::read(&path)?;
        columns.check(rows.iter().map(|(_, row)| row)).map_err(|e| Error::io(&path, e))?;
        let mut counts = FileCounts { rows: rows.len(), first_row: self.rows, ..FileCounts::default() };
        for (row, (place, mut object)) in rows.into_iter().enumerate() {
            let unread = columns.rename(&mut object);
            let parsed =
                form::parse(&object, columns).map_err(|e| Error::io(&path, format!("{place}: {e}")))?;
            for key in parsed.unused_keys.into_iter().chain(unread) {
                *self.unused_keys.entry(key).or_default() += 1;
            }
            let keep = |messages: &Vec<Message>| blank_answers || !has_blank_answer(messages);
            let (hole, template, row) = (parsed.hole, parsed.template, self.rows + row);
            match up_to_last_answer(parsed.messages).filter(keep) {
                Some(messages) => self.examples.push(Example { messages, hole, template, row }),
                None => counts.left_out.without_answer += 1,
            }
        }
        self.rows += counts.rows;
        self.files.push(FileCounts { path, ..counts });
        Ok(())
    }

    /// Number of rows without an answer.
    pub fn without_answer(&self) -> usize {
        self.files.iter().map(|file| file.left_out.without_answer).sum()
    }
}

/// Names the place of paths in a message.
pub fn place(paths: &[PathBuf]) -> PathBuf {
    match paths {
        [first, more @ ..] if !more.is_empty() => {
            format!("{} and {} more", first.display(), more.len()).into()
        }
        _ => paths.first().cloned().unwrap_or_default(),
    }
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

/// Returns the number of validation rows that are a share of `rows`.
///
/// # Errors
/// When that is none.
pub fn rows_of_share(rows: usize, share: f64) -> Result<usize> {
    match (rows as f64 * share).round() as usize {
        0 => Err(Error::new(format!(
            "a share of {share} of {rows} rows is no row to validate with; give a larger one"
        ))),
        count => Ok(count),
    }
}

/// Splits `rows` into `(training, validation)`, with `validation` rows drawn by `seed`: those with the least random numbers,
/// keyed by the seed and the row's index. Both parts keep the files' order.
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
