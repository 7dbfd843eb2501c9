//! JSON Lines: one value per line, blank lines ignored, errors that name the file and the line.

use codelsi_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::io::Read;
use std::path::Path;

/// Bytes that a packed file may hold.
const MAX_UNPACKED: u64 = 4 << 30;

/// Reads all values of a file, which gzip may have packed.
///
/// # Errors
/// When the file cannot be read or a line cannot be parsed.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    Ok(read_numbered(path)?.into_iter().map(|(_, value)| value).collect())
}

/// Reads all values of a file with the numbers of their lines, from 1.
///
/// # Errors
/// When the file cannot be read or a line cannot be parsed.
pub fn read_numbered<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>> {
    parse_numbered(&read_text(path)?).map_err(|e| e.at(path.display().to_string()))
}

/// Reads a text file, which gzip may have packed; a byte order mark is left out.
///
/// # Errors
/// When it cannot be read, is no UTF-8, or unpacks to more than 4 GiB.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = codelsi_model::jsonl::open(path)?.take(MAX_UNPACKED + 1).read_to_string(&mut text);
    match read.map_err(|e| Error::io(path, e))? as u64 {
        0..=MAX_UNPACKED => Ok(text),
        _ => Err(Error::io(path, "unpacks to more than 4 GiB")),
    }
}

/// Parses one value per line.
///
/// # Errors
/// Names the first line that cannot be parsed.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    Ok(parse_numbered(text)?.into_iter().map(|(_, value)| value).collect())
}

fn parse_numbered<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let e = |e: serde_json::Error| {
                // Without serde's own "at line 1", which would contradict ours.
                let text = e.to_string();
                let cause = text.split(" at line ").next().unwrap_or_default();
                Error::new(format!("line {}: {cause}", i + 1))
            };
            Ok((i + 1, serde_json::from_str(line).map_err(e)?))
        })
        .collect()
}

/// Reads the values of a file that an earlier run may have left half-written, up to the first line that cannot be
/// parsed. A missing file has none.
pub fn read_partial<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read(path).unwrap_or_default();
    let lines = text.split(|&b| b == b'\n');
    lines.map_while(|line| serde_json::from_slice(line).ok()).collect()
}

/// Serializes a value as one line, newline included.
pub fn line<T: Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("plain data serializes");
    line.push('\n');
    line
}
