//! The rows of a file as JSON objects, from JSON or Parquet.

use codelsi_engine::{Error, Result};
use codelsi_model::jsonl;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::panic;
use std::path::Path;
use std::sync::Once;
use std::thread;

/// A row with its place in the file, `line 3` or, in Parquet, `row 3`; both are counted from 1.
pub(super) type PlacedRow = (String, Map<String, Value>);

/// The first bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// Memory that the rows of any Parquet file may take, and of a larger one for each byte of the file: a text that many rows
/// repeat is in the file once.
const UNPACKED_FREE: u64 = 1 << 30;
const UNPACKED_RATIO: u64 = 200;

/// Bytes of stack for any Parquet file, and for a byte of its footer, up to a length that no schema has.
const STACK: usize = 4 << 20;
const STACK_PER_BYTE: usize = 1 << 10;
const MAX_FOOTER: usize = 4 << 20;
/// The name of the thread that reads it.
const READER: &str = "parquet";
/// Levels of a column within others.
const MAX_NESTED: usize = 100;

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
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let limit = bytes.saturating_mul(UNPACKED_RATIO).max(UNPACKED_FREE);
    let footer = footer_length(&mut file).unwrap_or_default().min(bytes as usize);
    // The decoders of a damaged file may panic, and recurse over its schema, a level of which takes several bytes.
    silence_panics_of(READER);
    let reader = thread::Builder::new()
        .name(READER.into())
        .stack_size(STACK + STACK_PER_BYTE * footer.min(MAX_FOOTER))
        .spawn(move || parquet_rows(file, limit));
    let rows = reader.map_err(|e| Error::io(path, e))?.join();
    let rows = rows.unwrap_or_else(|_| Err(ParquetError::General("its pages are damaged".into())));
    let rows = rows.map_err(|e| Error::io(path, format!("no readable Parquet file: {e}")))?;
    match rows.is_empty() {
        true => Err(Error::io(path, "the file holds no row")),
        false => Ok(rows),
    }
}

/// Leaves out the message of a panic in a thread of this name: the error that is returned says what is wrong.
fn silence_panics_of(name: &'static str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(name) {
                others(info);
            }
        }));
    });
}

/// Reads the length of the footer, which holds the schema: four bytes before the mark at the end. A file cut short has none.
fn footer_length(file: &mut File) -> io::Result<usize> {
    let mut length = [0; 4];
    file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut length))?;
    file.rewind()?;
    Ok(u32::from_le_bytes(length) as usize)
}

/// Reads rows that take at most about `limit` bytes of memory.
pub(super) fn parquet_rows(file: File, limit: u64) -> Result<Vec<PlacedRow>, ParquetError> {
    let (mut rows, mut unpacked) = (Vec::new(), 0);
    let reader = SerializedFileReader::new(file)?;
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    if columns.iter().any(|column| column.path().parts().len() > MAX_NESTED) {
        return Err(ParquetError::General(format!("its columns are nested more than {MAX_NESTED} deep")));
    }
    for (i, row) in reader.into_iter().enumerate() {
        let row = row?.to_json_value();
        unpacked += size(&row);
        if unpacked > limit {
            let message =
                format!("row {}: it unpacks to {} MiB, out of proportion to its size", i + 1, limit >> 20);
            return Err(ParquetError::General(message));
        }
        let Value::Object(row) = row else {
            return Err(ParquetError::General(format!("row {} has no columns", i + 1)));
        };
        rows.push((format!("row {}", i + 1), row));
    }
    Ok(rows)
}

/// Bytes of memory, roughly, that a value takes.
fn size(value: &Value) -> u64 {
    const ANY: u64 = 32;
    ANY + match value {
        Value::String(text) => text.len() as u64,
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(row) => row.iter().map(|(key, value)| ANY + key.len() as u64 + size(value)).sum(),
        _ => 0,
    }
}
