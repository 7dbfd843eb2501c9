//! JSON Lines: one value per line, blank lines ignored, errors that name the file and the line.

use codelsi_engine::{Error, Result};
use flate2::read::MultiGzDecoder;
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
    parse(&read_text(path)?).map_err(|e| e.at(path.display().to_string()))
}

/// Reads a text file, which gzip may have packed; a byte order mark is left out.
///
/// # Errors
/// When it cannot be read, is no UTF-8, or unpacks to more than 4 GiB.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let read = MultiGzDecoder::new(bytes.as_slice()).take(MAX_UNPACKED + 1).read_to_end(&mut unpacked);
        read.map_err(|e| Error::io(path, format!("is packed by gzip, and damaged: {e}")))?;
        if unpacked.len() as u64 > MAX_UNPACKED {
            return Err(Error::io(path, "unpacks to more than 4 GiB"));
        }
        unpacked
    } else {
        bytes
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::io(path, "is no UTF-8 text, nor packed by gzip"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Parses one value per line.
///
/// # Errors
/// Names the first line that cannot be parsed.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let e = |e: serde_json::Error| {
                // Without serde's own "at line 1", which would contradict ours.
                let text = e.to_string();
                let cause = text.split(" at line ").next().unwrap_or_default();
                Error::new(format!("line {}: {cause}", i + 1))
            };
            serde_json::from_str(line).map_err(e)
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
