//! JSON lines: one value a line, blank lines ignored, errors that name the file and the line.

use codelsi_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// All values of a file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let e = |e: serde_json::Error| {
                // serde's own "line 1" would contradict ours.
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or_default().to_string();
                Error::new(format!("line {}: {what}", i + 1)).at(path.display().to_string())
            };
            serde_json::from_str(line).map_err(e)
        })
        .collect()
}

/// The values of a file that an earlier run may have left half-written: an unreadable line ends it; no file is empty.
pub fn read_partial<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read(path).unwrap_or_default();
    let lines = text.split(|&b| b == b'\n');
    lines.map_while(|line| serde_json::from_slice(line).ok()).collect()
}

/// One value as a line, newline included.
pub fn line<T: Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("plain data serializes");
    line.push('\n');
    line
}
