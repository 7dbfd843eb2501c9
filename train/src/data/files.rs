//! The files of rows that paths name: files, and what folders of them hold.

use codelsi_engine::{Error, Result};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Ends of the names of files of rows.
const ROWS: [&str; 7] = [".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet"];
/// Files with which Hugging Face's `datasets` describes a folder of rows.
const DESCRIPTIONS: [&str; 4] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
/// Folders within folders that are read.
const MAX_DEPTH: usize = 16;

/// Files of rows, in the order of their paths, a folder's by name.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub rows: Vec<PathBuf>,
    /// Files that folders hold beside them.
    pub others: Vec<PathBuf>,
}

/// Finds the files of rows of files and folders.
///
/// # Errors
/// A folder that cannot be read or holds no file of rows, or a file that is there twice.
pub(super) fn find(paths: &[impl AsRef<Path>]) -> Result<Files> {
    let mut files = Files::default();
    for path in paths.iter().map(AsRef::as_ref) {
        let before = files.rows.len();
        match path.is_dir() {
            true => walk(path, 0, &mut files)?,
            false => files.rows.push(path.to_owned()),
        }
        if files.rows.len() == before {
            return Err(Error::io(path, format!("holds no file of rows ({})", ROWS.join(", "))));
        }
    }
    let mut seen = HashSet::new();
    let mut is_new = |path: &&PathBuf| seen.insert(path.canonicalize().unwrap_or_else(|_| (*path).clone()));
    match files.rows.iter().find(|path| !is_new(path)) {
        Some(twice) => Err(Error::io(twice, "is given twice; name it once")),
        None => Ok(files),
    }
}

fn walk(folder: &Path, depth: usize, files: &mut Files) -> Result<()> {
    let io = |e| Error::io(folder, e);
    let mut entries = fs::read_dir(folder).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_lowercase());
        let is_rows = ROWS.iter().any(|end| name.ends_with(end)) && !DESCRIPTIONS.contains(&name.as_str());
        // A link to a folder may lead round in a circle; one to a file is a file of Hugging Face's cache.
        let is_folder = entry.file_type().map_err(io)?.is_dir();
        if is_folder && depth < MAX_DEPTH && !name.starts_with('.') {
            walk(&path, depth + 1, files)?;
        } else if is_rows && !name.starts_with('.') && path.is_file() {
            files.rows.push(path);
        } else {
            files.others.push(path);
        }
    }
    Ok(())
}
