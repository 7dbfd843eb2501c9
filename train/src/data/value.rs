//! Values and names of rows, and how messages show them.

use codelsi_engine::printable;
use serde_json::{Map, Value};

/// Returns the text of a key that must be there.
pub(super) fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(value) => Err(format!("`{key}` is {}, expected text", kind(value))),
        None => Err(format!("missing field `{key}`")),
    }
}

/// Names the type of a JSON value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Lists names from a file, each with a note: the first few, shortened and without control characters.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = (&'a str, String)>) -> String {
    const NAMED: usize = 12;
    let more = names.len().saturating_sub(NAMED);
    let mut shown: Vec<String> = names.take(NAMED).map(|(name, note)| quoted(name) + &note).collect();
    shown.extend((more > 0).then(|| format!("and {more} more")));
    shown.join(", ")
}

/// Quotes a name from a file, on one line and no longer than can be read.
pub(crate) fn quoted(name: &str) -> String {
    const SHOWN: usize = 40;
    format!("`{}`", printable(&name.replace('\n', " "), SHOWN))
}

/// Joins two texts with a blank line, as Alpaca joins an instruction and its input; an empty one leaves the other.
pub(super) fn join_paragraphs(first: &str, second: &str) -> String {
    match (first.trim().is_empty(), second.trim().is_empty()) {
        (_, true) => first.to_owned(),
        (true, false) => second.to_owned(),
        (false, false) => format!("{first}\n\n{second}"),
    }
}
