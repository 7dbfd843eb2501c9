//! The rows of a file as JSON objects, from JSON or Parquet.

use codelsi_engine::{Error, Result};
use codelsi_model::jsonl;
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// A row with its place in the file, `line 3` or, in Parquet, `row 3`; both are counted from 1.
pub(super) type PlacedRow = (String, Map<String, Value>);

/// The first bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// Reads all rows of a file.
///
/// # Errors
/// A file that cannot be read, holds no row, or holds one that is no JSON object.
pub(super) fn read(path: &Path) -> Result<Vec<PlacedRow>> {
    let mut reader = jsonl::open(path)?;
    if reader.fill_buf().map_err(|e| Error::io(path, e))?.starts_with(PARQUET) {
        return read_parquet(path);
    }
    let rows = jsonl::read_with_lines(reader, path)?;
    Ok(rows.into_iter().map(|(line, row)| (format!("line {line}"), row)).collect())
}

fn read_parquet(path: &Path) -> Result<Vec<PlacedRow>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // The decoders of a damaged file may panic.
    let rows = catch_unwind(AssertUnwindSafe(|| parquet_rows(file)))
        .unwrap_or_else(|_| Err(ParquetError::General("its pages are damaged".into())));
    let rows = rows.map_err(|e| Error::io(path, format!("no readable Parquet file: {e}")))?;
    match rows.is_empty() {
        true => Err(Error::io(path, "the file holds no row")),
        false => Ok(rows),
    }
}

fn parquet_rows(file: File) -> Result<Vec<PlacedRow>, ParquetError> {
    let mut rows = Vec::new();
    for (i, row) in SerializedFileReader::new(file)?.into_iter().enumerate() {
        let Value::Object(row) = row?.to_json_value() else {
            return Err(ParquetError::General(format!("row {} has no columns", i + 1)));
        };
        rows.push((format!("row {}", i + 1), row));
    }
    Ok(rows)
}
