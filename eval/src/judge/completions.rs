//! Completions to judge, in our own form or in MultiPL-E's.

use crate::jsonl;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A completion of a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRecord {
    pub id: String,
    /// The problem's name.
    pub name: String,
    /// The model's output, not yet truncated at a stop token.
    pub completion: String,
}

/// A value of a completions file; further fields are ignored.
#[derive(Deserialize)]
struct FileValue {
    id: Option<String>,
    name: String,
    completion: Option<String>,
    /// MultiPL-E's: all completions of one problem.
    completions: Option<Vec<String>>,
}

/// Reads the completions of a file, or of every `.json`, `.jsonl` and `.gz` file of a folder by the order of their names. A
/// file holds JSON Lines of [`CompletionRecord`], or MultiPL-E's objects of a problem's `name` and its `completions`,
/// whose ids become `NAME/0`, `NAME/1` and so on. Files may be packed by gzip.
///
/// # Errors
/// Names the file and line that cannot be read.
pub fn read_completions(path: &Path) -> Result<Vec<CompletionRecord>> {
    let files = if path.is_dir() { files_of(path)? } else { vec![path.to_path_buf()] };
    let mut records = Vec::new();
    for file in &files {
        let text = jsonl::read_text(file)?;
        records.extend(parse(&text).map_err(|e| e.at(file.display().to_string()))?);
    }
    Ok(records)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let is_data = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // MultiPL-E writes its own verdicts beside the completions.
        !name.contains(".results.") && [".json", ".jsonl", ".gz"].iter().any(|end| name.ends_with(end))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_data).collect();
    files.sort();
    match files.is_empty() {
        true => Err(Error::io(folder, "holds no .json, .jsonl or .gz file of completions")),
        false => Ok(files),
    }
}

fn parse(text: &str) -> Result<Vec<CompletionRecord>> {
    // An object over several lines is a whole file.
    let values = match serde_json::from_str::<FileValue>(text) {
        Ok(value) => vec![value],
        Err(_) => jsonl::parse(text)?,
    };
    let mut records = Vec::new();
    for (i, value) in values.into_iter().enumerate() {
        let missing = |field: &str| {
            let forms =
                "{\"id\", \"name\", \"completion\"} or MultiPL-E's {\"name\", \"completions\"} is expected";
            Error::new(format!("value {}: no field `{field}`; {forms}", i + 1))
        };
        let FileValue { id, name, completion, completions } = value;
        match completions {
            Some(all) => records.extend(all.into_iter().enumerate().map(|(sample, completion)| {
                CompletionRecord { id: format!("{name}/{sample}"), name: name.clone(), completion }
            })),
            None => records.push(CompletionRecord {
                id: id.ok_or_else(|| missing("id"))?,
                name,
                completion: completion.ok_or_else(|| missing("completion"))?,
            }),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn pack(path: &Path, text: &str) {
        let mut packed = GzEncoder::new(fs::File::create(path).unwrap(), Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
    }

    #[test]
    fn multipl_e_s_own_files_are_read_packed_and_by_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        pack(
            &dir.path().join("b.json.gz"),
            "{\"name\": \"b\",\n \"prompt\": \"\", \"completions\": [\"x\", \"y\"]}",
        );
        fs::write(dir.path().join("a.json"), "{\"name\": \"a\", \"completions\": [\"z\"]}").unwrap();
        fs::write(dir.path().join("a.results.json"), "{}").unwrap();
        let ids = |path: &Path| -> Vec<String> {
            read_completions(path)
                .unwrap()
                .into_iter()
                .map(|r| format!("{} {}", r.id, r.completion))
                .collect()
        };
        assert_eq!(ids(dir.path()), ["a/0 z", "b/0 x", "b/1 y"]);
        assert_eq!(ids(&dir.path().join("b.json.gz")), ["b/0 x", "b/1 y"]);
    }

    #[test]
    fn our_lines_are_read_packed_and_with_a_byte_order_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.jsonl.gz");
        pack(
            &path,
            "\u{feff}{\"id\":\"1\",\"name\":\"p\",\"completion\":\"x\"}\n\n{\"id\":\"2\",\"name\":\"p\",\"completion\":\"\"}\n",
        );
        let records = read_completions(&path).unwrap();
        assert_eq!(records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        fs::write(&path, [0x1f, 0x8b, 0, 1]).unwrap();
        assert!(read_completions(&path).unwrap_err().to_string().contains("c.jsonl.gz"));
        fs::write(&path, "{\"name\":\"p\",\"completion\":\"\"}\n").unwrap();
        assert!(read_completions(&path).unwrap_err().to_string().contains("no field `id`"));
    }
}
