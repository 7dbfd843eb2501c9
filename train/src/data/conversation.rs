//! Lists of messages: OpenAI's `{role, content}` and ShareGPT's `{from, value}`.

use super::value::{kind, quoted, text};
use codelsi_model::message::{Message, Role};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Names of the authors of messages.
const ROLES: [(&str, Role); 12] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("human", Role::User),
    ("assistant", Role::Assistant),
    ("gpt", Role::Assistant),
    ("chatgpt", Role::Assistant),
    ("model", Role::Assistant),
    ("tool", Role::Tool),
    ("function", Role::Tool),
    ("observation", Role::Tool),
    ("ipython", Role::Tool),
];

/// Reads a list of messages. Adds the keys that are not read, and have a value, to `unused`.
///
/// # Errors
/// A description of the fault, to stand after the name of the list.
pub(super) fn parse(list: &Value, unused: &mut BTreeSet<String>) -> Result<Vec<Message>, String> {
    let Some(list) = list.as_array() else {
        return Err(format!("is {}, expected a list of messages", kind(list)));
    };
    let numbered = list.iter().enumerate().map(|(i, message)| (i + 1, message));
    numbered
        .map(|(number, value)| {
            let at = |e| format!("holds a message {number} that is no message: {e}");
            match value.as_object() {
                Some(message) => parse_message(message, unused).map_err(at),
                None => Err(at(format!("it is {}", kind(value)))),
            }
        })
        .collect()
}

fn parse_message(message: &Map<String, Value>, unused: &mut BTreeSet<String>) -> Result<Message, String> {
    let (author, content) = match (message.contains_key("role"), message.contains_key("from")) {
        (true, false) => ("role", "content"),
        (false, true) => ("from", "value"),
        _ => return Err("expected `role` and `content`, or `from` and `value`".into()),
    };
    let name = text(message, author)?;
    let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ROLES.iter().map(|(known, _)| *known).collect();
        return Err(format!("`{author}` is {}, expected one of {}", quoted(name), known.join(", ")));
    };
    let is_unused = |(key, value): &(&String, &Value)| *key != author && *key != content && !value.is_null();
    unused.extend(message.iter().filter(is_unused).map(|(key, _)| key.clone()));
    Ok(Message { role: *role, content: text(message, content)?.to_owned() })
}
