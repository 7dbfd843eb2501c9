//! Results as comma-separated values (RFC 4180): a line of names, then a line for each row.

use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Writes rows, which are objects with the same names, to a file.
///
/// # Errors
/// When there are no rows, or the file cannot be written.
pub fn write(path: &Path, rows: &[Value]) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::io(path, "there are no rows to write"));
    }
    write_atomic(path, text(rows).as_bytes())
}

fn text(rows: &[Value]) -> String {
    let objects = || rows.iter().filter_map(Value::as_object);
    let names = objects().next().map(|first| first.keys().map(|name| field(name)).collect::<Vec<_>>());
    let lines = objects().map(|object| object.values().map(value).collect::<Vec<_>>());
    names.into_iter().chain(lines).map(|fields| fields.join(",") + "\n").collect()
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => field(text),
        other => field(&other.to_string()),
    }
}

/// Quotes a field that needs it.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_quoted_where_they_need_it() {
        let rows = [
            json!({ "op": "flash", "shape": "T=[7, 9]", "x": 1.5 }),
            json!({ "op": "a\"b", "shape": "", "x": null }),
        ];
        assert_eq!(text(&rows), "op,shape,x\nflash,\"T=[7, 9]\",1.5\n\"a\"\"b\",,null\n");
    }
}
