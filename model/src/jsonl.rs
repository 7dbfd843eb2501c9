//! JSON Lines, plain or gzip-compressed: one object per line; errors name file and line.

use codelsi_engine::files::write_atomic_with;
use codelsi_engine::{Error, Result};
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

/// Reads every line of `path` (decompressed if it ends in `.gz`) as a `T`. Blank lines are skipped.
///
/// # Errors
/// A file that cannot be read, holds no row, or holds a line that is not a `T`.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Vec<T>> {
    let path = path.as_ref();
    let io = |e| Error::io(path, e);
    let mut reader = BufReader::new(open(path).map_err(io)?);
    let (mut rows, mut line) = (Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            rows.push(serde_json::from_slice(text).map_err(|e| line_error(path, number, &e))?);
        }
    }
    if rows.is_empty() {
        return Err(Error::io(path, "the file holds no row; expected one JSON object a line"));
    }
    Ok(rows)
}

/// Writes one line per row, atomically.
///
/// # Errors
/// A file that cannot be written.
pub fn write<T: Serialize>(path: impl AsRef<Path>, rows: &[T]) -> Result<()> {
    write_atomic_with(path, |w| {
        for row in rows {
            serde_json::to_writer(&mut *w, row)?;
            w.write_all(b"\n")?;
        }
        Ok(())
    })
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    if fs::metadata(path)?.is_dir() {
        return Err(std::io::Error::other("is a folder; expected a JSON Lines file"));
    }
    let file = File::open(path)?;
    Ok(if path.extension().is_some_and(|e| e == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// Replaces the line number of serde_json, which counts inside the one line it was given, by that of the file.
fn line_error(path: &Path, number: usize, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    Error::io(path, format!("line {number}, column {}: {what}", error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_malformed_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        fs::write(&file, "{\"a\": 1}\n\n{\"a\": }\n").unwrap();
        let message = read::<Value>(&file).unwrap_err().to_string();
        assert!(message.ends_with("rows.jsonl: line 3, column 7: expected value"), "{message}");
    }

    #[test]
    fn empty_absent_and_folder_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        fs::write(&file, "\n \n").unwrap();
        assert!(read::<Value>(&file).unwrap_err().to_string().contains("holds no row"));
        assert!(read::<Value>(folder.path().join("none.jsonl")).is_err());
        assert!(read::<Value>(folder.path()).unwrap_err().to_string().contains("is a folder"));
    }

    #[test]
    fn written_rows_are_read_back_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("rows.jsonl"), folder.path().join("rows.jsonl.gz"));
        let rows = vec![serde_json::json!({"text": "a\nb"}), serde_json::json!({"text": "ü"})];
        write(&plain, &rows).unwrap();
        let mut gz = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), Default::default());
        gz.write_all(&fs::read(&plain).unwrap()).unwrap();
        gz.finish().unwrap();
        assert_eq!(read::<Value>(&plain).unwrap(), rows);
        assert_eq!(read::<Value>(&packed).unwrap(), rows);
    }
}
