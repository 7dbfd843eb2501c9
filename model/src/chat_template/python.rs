//! Python in templates: values are written as Python writes them, and its functions, filters, tests and methods exist.

use chrono::{DateTime, FixedOffset};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;
use std::fmt::Write;

/// Levels of nested values that are written.
const MAX_DEPTH: usize = 100;

/// Adds what transformers' templates may use.
pub(super) fn add_to(environment: &mut Environment<'static>, now: DateTime<FixedOffset>) {
    minijinja_contrib::add_to_environment(environment);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out: &mut Output, _: &State, value: &Value| {
        let text = to_str(value)?;
        out.write_str(&text).map_err(Error::from)
    });
    environment.add_filter("string", |value: &Value| to_str(value));
    environment.add_filter("tojson", to_json);
    environment.add_test("sequence", |value: &Value| is_iterable(value));
    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(invalid(to_str(message)?))
    });
    environment.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        let mut text = String::new();
        write!(text, "{}", now.format(format))
            .map_err(|_| invalid(format!("strftime: `{format}` is no format")))?;
        Ok(text)
    });
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// True for what Python iterates over.
fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// Python's `str(value)`; an undefined value is the empty text.
fn to_str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_string()),
        ValueKind::Undefined => Ok(String::new()),
        _ => {
            let mut text = String::new();
            write_repr(value, 0, &mut text)?;
            Ok(text)
        }
    }
}

/// Appends Python's `repr(value)`.
fn write_repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("a value is nested more than {MAX_DEPTH} levels deep")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(&item, depth + 1, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(&key, depth + 1, out)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Appends Python's `repr` of a text.
fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// transformers' `tojson`: Python's `json.dumps`, with its separators and without HTML's escapes.
fn to_json(value: &Value, ascii: Option<bool>, kwargs: Kwargs) -> Result<String, Error> {
    let ensure_ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.or(ascii).unwrap_or(false);
    let indent = kwargs.get::<Option<usize>>("indent")?.map(|n| n.min(32));
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let default_comma = if indent.is_some() { "," } else { ", " };
    let separator = |i: usize, default: &str| {
        separators.as_ref().and_then(|pair| pair.get(i).cloned()).unwrap_or_else(|| default.to_string())
    };
    let style = JsonStyle {
        ensure_ascii,
        indent,
        sort_keys,
        comma: separator(0, default_comma),
        colon: separator(1, ": "),
    };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

/// The options of `json.dumps`.
struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<usize>,
    sort_keys: bool,
    comma: String,
    colon: String,
}

impl JsonStyle {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("a value is nested more than {MAX_DEPTH} levels deep")));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items(('[', ']'), &items, depth, out, |item, out| {
                    self.write(item, depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.write_items(('{', '}'), &keys, depth, out, |key, out| {
                    let name = key.as_str().map_or_else(|| to_str(key), |text| Ok(text.to_string()))?;
                    self.write_text(&name, out);
                    out.push_str(&self.colon);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => return Err(invalid(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_items(
        &self,
        (open, close): (char, char),
        items: &[Value],
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            self.indent.iter().for_each(|indent| {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            });
        };
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i > 0 { &self.comma } else { "" });
            line(depth + 1, out);
            write(item, out)?;
        }
        if !items.is_empty() {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn write_text(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ensure_ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            match c {
                ' '..='~' => out.push(c),
                _ => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            }
        }
    }
}

/// Calls a method of a Python value: those of `pycompat`, and a few that it lacks.
fn method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            let parts = if name == "partition" { text.split_once(by) } else { text.rsplit_once(by) };
            let parts = match (parts, name) {
                (Some((before, after)), _) => [before, by, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "rsplit" => {
            let (by, max): (&str, Option<usize>) = from_args(args)?;
            let limit = max.map_or(usize::MAX, |max| max.saturating_add(1));
            let mut parts: Vec<Value> = text.rsplitn(limit, by).map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        "casefold" => Ok(Value::from(text.to_lowercase())),
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}
