//! JSON Lines: one value per line, blank lines ignored, errors that name the file and the line.

use codelsi_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// Reads all values of a file.
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
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let e = |e: serde_json::Error| {
                // Without serde's own "at line 1", which would contradict ours.
                let text = e.to_string();
                let cause = text.split(" at line ").next().unwrap_or_default();
                Error::new(format!("line {}: {cause}", i + 1)).at(path.display().to_string())
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
