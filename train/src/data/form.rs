//! The forms of training rows, and the conversation that a row holds.

use super::columns::Columns;
use super::conversation;
use super::hole::Hole;
use super::keys::{CONVERSATIONS, HISTORY, INFILL, INPUTS, PAIRS, SYSTEMS, TEMPLATE};
use super::value::{join_paragraphs, listed, text};
use codelsi_model::message::{Message, Role};
use codelsi_model::template::PromptTemplate;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A row's conversation.
pub(super) struct ParsedRow {
    pub messages: Vec<Message>,
    /// The text around the hole that the answer fills.
    pub hole: Option<Hole>,
    /// The template that the row names; `None` leaves it to the run.
    pub template: Option<PromptTemplate>,
    /// Keys that have a value and are no part of the conversation; those of messages as `messages.KEY`.
    pub unused_keys: BTreeSet<String>,
}

/// The keys that hold a row's prompt and answer, or its messages.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Pair(&'static str, &'static str),
    Conversation(&'static str),
    Infill,
}

impl Form {
    fn all() -> impl Iterator<Item = Form> {
        let pairs = PAIRS.iter().map(|&(prompt, answer)| Form::Pair(prompt, answer));
        pairs.chain(CONVERSATIONS.map(Form::Conversation)).chain([Form::Infill])
    }

    fn keys(self) -> Vec<&'static str> {
        match self {
            Form::Pair(prompt, answer) => vec![prompt, answer],
            Form::Conversation(key) => vec![key],
            Form::Infill => INFILL.to_vec(),
        }
    }

    /// The form's keys as a message shows them: `prompt` and `completion`.
    fn names(self) -> String {
        self.keys().iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ")
    }
}

/// Reads the conversation of a row, whose keys `columns` has named.
///
/// # Errors
/// A description of the fault of the row: no form or several, or a value of another type.
pub(super) fn parse(row: &Map<String, Value>, columns: &Columns) -> Result<ParsedRow, String> {
    let form = form_of(row, columns)?;
    let mut reader = Reader { row, used: BTreeSet::from_iter(form.keys()) };
    let mut unused_in_messages = BTreeSet::new();
    let (mut hole, mut system, mut template) = (None, None, None);
    if form == Form::Infill {
        hole = Some(reader.hole()?);
    } else {
        system = reader.one_text(&SYSTEMS)?;
        template = reader.template();
    }
    let messages = match form {
        Form::Pair(prompt, answer) => reader.pair(prompt, answer)?,
        Form::Conversation(key) => {
            conversation::parse(&row[key], &mut unused_in_messages).map_err(|e| format!("`{key}` {e}"))?
        }
        Form::Infill => vec![Message { role: Role::Assistant, content: text(row, INFILL[2])?.to_owned() }],
    };
    let has_value = |key: &&String| !row[*key].is_null() && !reader.used.contains(key.as_str());
    let mut unused_keys: BTreeSet<String> = row.keys().filter(has_value).cloned().collect();
    unused_keys.extend(unused_in_messages.into_iter().map(|key| format!("messages.{key}")));
    Ok(ParsedRow { messages: with_system(system, messages)?, hole, template, unused_keys })
}

/// Finds the one form whose keys all have values; of several, the one that columns are mapped to.
fn form_of(row: &Map<String, Value>, columns: &Columns) -> Result<Form, String> {
    let has_value = |key: &&str| row.get(*key).is_some_and(|value| !value.is_null());
    let mut found: Vec<Form> = Form::all().filter(|form| form.keys().iter().all(has_value)).collect();
    // Beside another prompt, `input` is a part of it.
    if found.len() > 1 {
        found.retain(|form| *form != Form::Pair("input", "output"));
    }
    let mapped = |form: &Form| form.keys().into_iter().filter(|key| columns.has(key)).count();
    let most = found.iter().map(mapped).max().unwrap_or(0);
    found.retain(|form| mapped(form) == most);
    match found[..] {
        [form] => Ok(form),
        [first, second, ..] => Err(format!(
            "{} and {} could each be the row's text; keep one of them",
            first.names(),
            second.names()
        )),
        [] => Err(what_is_missing(row)),
    }
}

/// Says why a row has no form.
fn what_is_missing(row: &Map<String, Value>) -> String {
    let has = |key: &&str| row.contains_key(*key);
    if let Some(form) = Form::all().find(|form| form.keys().iter().all(has)) {
        let null = form.keys().into_iter().find(|key| row[*key].is_null());
        return format!("`{}` is null, expected text", null.unwrap_or_default());
    }
    let has_prompt = PAIRS.iter().any(|(prompt, _)| has(prompt));
    if let Some(part) = INFILL[..2].iter().find(|key| has(key) && !has_prompt) {
        let missing = INFILL.into_iter().find(|key| !has(key)).unwrap_or_default();
        return format!("missing field `{missing}`, which a row with `{part}` has too");
    }
    // The pair that is half there says best what is missing.
    match PAIRS.iter().find(|(prompt, answer)| has(prompt) != has(answer)) {
        Some((prompt, answer)) if has(prompt) => {
            format!("missing field `{answer}`, the answer to `{prompt}`")
        }
        Some((prompt, answer)) => format!("missing field `{prompt}`, the prompt of `{answer}`"),
        None => format!(
            "no training row: expected `instruction` and `output`, `prompt` and `completion`, `messages`, or `prefix`, \
             `suffix` and `output`; its keys are {}",
            listed(row.keys().map(|key| (key.as_str(), String::new())))
        ),
    }
}

/// Puts a row's system text in front of its messages.
fn with_system(system: Option<&str>, mut messages: Vec<Message>) -> Result<Vec<Message>, String> {
    let Some(system) = system else { return Ok(messages) };
    match messages.first() {
        Some(Message { role: Role::System, content }) if content == system => {}
        Some(Message { role: Role::System, .. }) => {
            return Err("the row has a system text, and its first message is another one".into());
        }
        _ => messages.insert(0, Message { role: Role::System, content: system.to_owned() }),
    }
    Ok(messages)
}

/// A row being read, and the keys read so far.
struct Reader<'a> {
    row: &'a Map<String, Value>,
    used: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    /// Reads the text of the one of `keys` that is there and is not blank.
    fn one_text(&mut self, keys: &[&'static str]) -> Result<Option<&'a str>, String> {
        let mut found = None;
        for &key in keys.iter().filter(|key| self.row.get(**key).is_some_and(|value| !value.is_null())) {
            let value = text(self.row, key)?;
            if value.trim().is_empty() {
                self.used.insert(key);
            } else if let Some((other, _)) = found {
                return Err(format!("`{other}` and `{key}` both have a value; keep one of them"));
            } else {
                self.used.insert(key);
                found = Some((key, value));
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// Reads the row's own template. Another value than the name of one is an unused key: data sets have keys of all kinds.
    fn template(&mut self) -> Option<PromptTemplate> {
        let named = self.row.get(TEMPLATE)?.as_str()?.parse().ok()?;
        self.used.insert(TEMPLATE);
        Some(named)
    }

    /// Reads a prompt with its input and its history, and the answer.
    fn pair(&mut self, prompt: &'static str, answer: &'static str) -> Result<Vec<Message>, String> {
        let mut messages = self.history()?;
        let input = if prompt == "input" { &INPUTS[1..] } else { &INPUTS };
        let input = self.one_text(input)?;
        let instruction = join_paragraphs(text(self.row, prompt)?, input.unwrap_or_default());
        messages.extend(turn(&instruction, text(self.row, answer)?));
        Ok(messages)
    }

    /// Reads the text around a hole.
    fn hole(&self) -> Result<Hole, String> {
        let [prefix, suffix, _] = INFILL;
        Ok(Hole { prefix: text(self.row, prefix)?.to_owned(), suffix: text(self.row, suffix)?.to_owned() })
    }

    /// Reads the earlier turns.
    fn history(&mut self) -> Result<Vec<Message>, String> {
        let Some(value) = self.row.get(HISTORY).filter(|value| !value.is_null()) else {
            return Ok(Vec::new());
        };
        self.used.insert(HISTORY);
        let wrong = || format!("`{HISTORY}` is no list of [prompt, answer] pairs of text");
        let turns = value.as_array().ok_or_else(wrong)?;
        let mut messages = Vec::new();
        for pair in turns {
            match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(prompt), Value::String(answer)]) => messages.extend(turn(prompt, answer)),
                _ => return Err(wrong()),
            }
        }
        Ok(messages)
    }
}

fn turn(prompt: &str, answer: &str) -> [Message; 2] {
    [(Role::User, prompt), (Role::Assistant, answer)]
        .map(|(role, content)| Message { role, content: content.to_owned() })
}
