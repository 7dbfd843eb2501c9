//! JSON Lines that a run appends to, and files of values or folders of them.

use codelsi_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::path::{Path, PathBuf};

pub use codelsi_model::jsonl::read;

/// A value with its place in what was read: `line 3`, or the name of its file in a folder.
pub type Placed<T> = (String, T);

/// Reads the values of a file, or of every `.json`, `.jsonl` and `.gz` file of a folder by the order of their names. Those of
/// MultiPL-E's results, which lie beside its completions, are left out.
///
/// # Errors
/// Names the file and line that cannot be read.
pub fn read_placed<T: DeserializeOwned>(path: &Path) -> Result<Vec<Placed<T>>> {
    let is_folder = path.is_dir();
    let files = if is_folder { files_of(path)? } else { vec![path.to_path_buf()] };
    let mut values = Vec::new();
    for file in &files {
        let of_file = codelsi_model::jsonl::read_with_lines(codelsi_model::jsonl::open(file)?, file)?;
        let folder = match is_folder {
            true => format!("{}, ", file.file_name().unwrap_or_default().to_string_lossy()),
            false => String::new(),
        };
        values.extend(of_file.into_iter().map(|(line, value)| (format!("{folder}line {line}"), value)));
    }
    Ok(values)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let is_data = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.contains(".results.") && [".json", ".jsonl", ".gz"].iter().any(|end| name.ends_with(end))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_data).collect();
    files.sort();
    match files.is_empty() {
        true => Err(Error::io(folder, "holds no .json, .jsonl or .gz file")),
        false => Ok(files),
    }
}

/// Reads the values of a file that an earlier run may have left half-written, up to the first line that cannot be
/// parsed. A missing file has none.
pub fn read_partial<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read(path).unwrap_or_default();
    let lines = text.split(|&b| b == b'\n');
    lines.map_while(|line| serde_json::from_slice(line).ok()).collect()
}

/// Serializes a value as one line, newline included.
pub fn line<T: Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("plain data serializes");
    line.push('\n');
    line
}
