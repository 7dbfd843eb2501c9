//! JSON rows: JSON Lines, one JSON array or one object, plain or gzip-compressed, with or without a byte order mark. A row is
//! a JSON object; errors name file and line.

mod unpacked;

use codelsi_engine::files::write_atomic_with;
use codelsi_engine::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::Path;
use unpacked::Unpacked;

/// Reads every row of `path` as a `T`. Blank lines are skipped.
///
/// # Errors
/// A file that cannot be read, holds no row, or holds a row that is not a `T`.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Vec<T>> {
    let path = path.as_ref();
    Ok(read_with_lines(open(path)?, path)?.into_iter().map(|(_, row)| row).collect())
}

/// Reads every row of an open file as a `T`, with the line that it begins in, counted from 1.
///
/// # Errors
/// As [`read`].
pub fn read_with_lines<T: DeserializeOwned>(
    mut reader: impl BufRead,
    path: &Path,
) -> Result<Vec<(usize, T)>> {
    let io = |e| Error::io(path, e);
    let (blank_lines, first) = skip_whitespace(&mut reader).map_err(io)?;
    let rows = match first {
        Some(b'[') => {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map_err(io)?;
            read_array(&text, 1 + blank_lines)
        }
        _ => read_lines(reader, 1 + blank_lines),
    };
    let rows = rows.map_err(|e| Error::io(path, e))?;
    if rows.is_empty() {
        return Err(Error::io(path, "the file holds no row; expected one JSON object a line"));
    }
    Ok(rows)
}

/// Opens a text file for reading: decompressed if it is gzip-compressed, whatever its name, and without its UTF-8 byte
/// order mark.
///
/// # Errors
/// A file that cannot be read, a folder, or text in UTF-16. Reading fails where a compressed file unpacks to a multiple of its
/// size that no rows have.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn BufRead>> {
    let path = path.as_ref();
    let io = |e| Error::io(path, e);
    if fs::metadata(path).map_err(io)?.is_dir() {
        return Err(Error::io(path, "is a folder; expected a file of rows"));
    }
    let (head, file) = with_head(BufReader::new(File::open(path).map_err(io)?)).map_err(io)?;
    let (head, text): (Vec<u8>, Box<dyn BufRead>) = match head.starts_with(&GZIP) {
        true => {
            let (head, text) = with_head(BufReader::new(Unpacked::new(file))).map_err(io)?;
            (head, Box::new(text))
        }
        false => (head, Box::new(file)),
    };
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(Error::io(path, "is text in UTF-16; save it as UTF-8"));
    }
    let mut text = text;
    if head.starts_with(BYTE_ORDER_MARK) {
        text.consume(BYTE_ORDER_MARK.len());
    }
    Ok(text)
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

/// The first bytes of a gzip file, and of UTF-8 text as Windows saves it.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Returns a reader's first bytes, at most four, and the reader with these still to read.
fn with_head(mut reader: impl BufRead) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut head = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// Skips whitespace. Returns the number of lines skipped and the next byte, if there is one.
fn skip_whitespace(reader: &mut impl BufRead) -> io::Result<(usize, Option<u8>)> {
    let mut lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        lines += count_lines(&buffer[..blank]);
        let (next, end) = (buffer.get(blank).copied(), buffer.is_empty());
        reader.consume(blank);
        if next.is_some() || end {
            return Ok((lines, next));
        }
    }
}

fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte == b'\n').count()
}

/// Rows with their lines, or what is wrong in which line.
type Rows<T> = Result<Vec<(usize, T)>, String>;

/// Reads one object a line, or one object over all lines; the first line has the number `number`.
fn read_lines<T: DeserializeOwned>(mut reader: impl BufRead, mut number: usize) -> Rows<T> {
    let (mut rows, mut line) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).map_err(|e| format!("line {number}: {e}"))? > 0 {
        let text = line.trim_ascii();
        if !text.is_empty() {
            check_object(text, number)?;
            match serde_json::from_slice(text) {
                Ok(row) => rows.push((number, row)),
                Err(e) if e.is_eof() && rows.is_empty() => {
                    reader.read_to_end(&mut line).map_err(|e| format!("line {number}: {e}"))?;
                    return Ok(vec![(number, read_object(&line, number, &e)?)]);
                }
                Err(e) => return Err(located(number, &e)),
            }
        }
        line.clear();
        number += 1;
    }
    Ok(rows)
}

/// Reads the one object of a text whose first line, of the number `number`, is no whole object for the reason `first`.
fn read_object<T: DeserializeOwned>(
    text: &[u8],
    number: usize,
    first: &serde_json::Error,
) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|e| match text.starts_with(b"{\n") || text.starts_with(b"{\r\n") {
        true => located(number, &e),
        // A line that was cut off.
        false => located(number, first),
    })
}

/// Reads the objects of one JSON array that begins in the line `line`.
fn read_array<T: DeserializeOwned>(text: &[u8], mut line: usize) -> Rows<T> {
    let mut rows = Vec::new();
    let (mut at, mut expected) = (1, b"{]".as_slice());
    loop {
        let blank = text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        line += count_lines(&text[at..at + blank]);
        at += blank;
        match text.get(at) {
            Some(b']') if expected.contains(&b']') => break,
            Some(b',') if expected.contains(&b',') => (at, expected) = (at + 1, b"{"),
            Some(_) if expected.contains(&b'{') => {
                check_object(&text[at..], line)?;
                let mut values = serde_json::Deserializer::from_slice(&text[at..]).into_iter();
                let value = values.next().ok_or_else(|| format!("line {line}: a row is missing"))?;
                rows.push((line, value.map_err(|e| located(line, &e))?));
                let end = at + values.byte_offset();
                line += count_lines(&text[at..end]);
                (at, expected) = (end, b",]");
            }
            Some(_) => return Err(format!("line {line}: expected `,` or `]` after a row of the array")),
            None => return Err(format!("line {line}: the array has no end; the file may be cut off")),
        }
    }
    match text[at + 1..].trim_ascii().is_empty() {
        true => Ok(rows),
        false => Err(format!("line {line}: more text follows after the end of the array")),
    }
}

/// Refuses a row that is no object: serde would fill a struct's fields from an array.
fn check_object(text: &[u8], line: usize) -> Result<(), String> {
    let what = match text.first() {
        Some(b'{') => return Ok(()),
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ if text.starts_with(b"null") => "null",
        _ if text.starts_with(b"true") || text.starts_with(b"false") => "true or false",
        _ => return Err(format!("line {line}, column 1: expected value, one JSON object {{…}}")),
    };
    Err(format!("line {line}: a row is a JSON object {{…}}, this is {what}"))
}

/// Describes an error of serde_json, which counts lines from the row's first, by the line in the file.
fn located(line: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("line {}, column {}: {what}", line + error.line().saturating_sub(1), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;

    /// Writes a file and reads it.
    fn read_text<T: DeserializeOwned>(text: impl AsRef<[u8]>) -> Result<Vec<T>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn a_malformed_line_is_named() {
        let message = read_text::<Value>("{\"a\": 1}\n\n{\"a\": }\n").unwrap_err().to_string();
        assert!(message.ends_with("rows.jsonl: line 3, column 7: expected value"), "{message}");
    }

    #[test]
    fn a_row_is_an_object() {
        #[derive(Debug, Deserialize)]
        struct Pair {
            #[expect(dead_code, reason = "only read from text")]
            a: String,
        }
        for (row, what) in
            [("[\"do\"]", "a string"), ("7", "a number"), ("null", "null"), ("\"x\"", "a string")]
        {
            let message = read_text::<Pair>(format!("\n{row}\n")).unwrap_err().to_string();
            assert!(
                message.contains("line 2: a row is a JSON object") && message.ends_with(what),
                "{message}"
            );
        }
        let message = read_text::<Pair>("{\"a\":\"b\"}\n[\"do\"]\n").unwrap_err().to_string();
        assert!(message.contains("line 2") && message.ends_with("an array"), "{message}");
    }

    #[test]
    fn an_array_is_read_like_lines_and_its_errors_name_the_line() {
        let rows = [serde_json::json!({"text": "a]\n"}), serde_json::json!({"n": [1, {"m": 2}]})];
        let pretty = serde_json::to_string_pretty(&rows).unwrap();
        for text in [pretty.clone(), format!("\u{feff}\n {pretty}\n"), format!("[{},\n{}]", rows[0], rows[1])]
        {
            assert_eq!(read_text::<Value>(&text).unwrap(), rows, "{text}");
        }
        for (text, expected) in [
            ("[\n{\"a\": 1},\n7]", "line 3: a row is a JSON object {…}, this is a number"),
            ("[\n{\"a\": 1},\n{\n\"a\": }]", "line 4, column 6: expected value"),
            ("[{\"a\": 1}\n{\"a\": 2}]", "line 2: expected `,` or `]` after a row of the array"),
            ("[{\"a\": 1},\n", "line 2: the array has no end; the file may be cut off"),
            ("[{\"a\": 1}]\n{}", "line 1: more text follows after the end of the array"),
            ("[]", "the file holds no row; expected one JSON object a line"),
        ] {
            let message = read_text::<Value>(text).unwrap_err().to_string();
            assert!(message.ends_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn an_object_over_several_lines_is_a_row_and_a_cut_line_is_named() {
        let row = serde_json::json!({"text": "a", "list": ["b", {"c": 1}]});
        for text in [
            serde_json::to_string_pretty(&row).unwrap(),
            "{\"text\": \"a\",\n\"list\": [\"b\",\n{\"c\":1}]}\n".into(),
        ] {
            assert_eq!(read_text::<Value>(&text).unwrap(), std::slice::from_ref(&row), "{text}");
        }
        for (text, expected) in [
            ("{\n\"a\": 1,\n\"b\": }", "line 3, column 6: expected value"),
            ("\n{\"a\": 1\n{\"a\": 2}\n", "line 2, column 7: EOF while parsing an object"),
            ("{\"a\": 1}\n{\"a\":\n2}", "line 2, column 5: EOF while parsing a value"),
        ] {
            let message = read_text::<Value>(text).unwrap_err().to_string();
            assert!(message.ends_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_utf_16_is_named() {
        assert_eq!(read_text::<Value>("\u{feff}{\"a\": 1}\n").unwrap()[0]["a"], 1);
        let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(read_text::<Value>(wide).unwrap_err().to_string().contains("UTF-16"));
    }

    #[test]
    fn empty_absent_and_folder_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_text::<Value>("\n \n").unwrap_err().to_string().contains("holds no row"));
        assert!(read::<Value>(folder.path().join("none.jsonl")).is_err());
        assert!(read::<Value>(folder.path()).unwrap_err().to_string().contains("is a folder"));
    }

    #[test]
    fn written_rows_are_read_back_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("rows.jsonl");
        let rows = vec![serde_json::json!({"text": "a\nb"}), serde_json::json!({"text": "ü"})];
        write(&plain, &rows).unwrap();
        for (name, text) in [
            ("rows.jsonl.gz", fs::read(&plain).unwrap()),
            ("array.json.gz", [BYTE_ORDER_MARK, &serde_json::to_vec(&rows).unwrap()].concat()),
            ("without-its-ending", fs::read(&plain).unwrap()),
        ] {
            let packed = folder.path().join(name);
            let mut gz = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), Default::default());
            gz.write_all(&text).unwrap();
            gz.finish().unwrap();
            assert_eq!(read::<Value>(&packed).unwrap(), rows, "{name}");
        }
        assert_eq!(read::<Value>(&plain).unwrap(), rows);
    }
}
