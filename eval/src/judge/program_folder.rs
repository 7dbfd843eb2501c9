//! The temporary folders in which programs are compiled and run.

use crate::problem::CandidateProgram;
use codelsi_engine::{Error, Result};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Creates an empty folder, removed with all its contents when dropped.
pub fn temp_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("codelsi-").tempdir();
    folder.map_err(|e| Error::io(std::env::temp_dir(), e))
}

/// Creates a temporary folder with the program in `file.ts`.
pub fn program_folder(program: &CandidateProgram) -> Result<TempDir> {
    let folder = temp_folder()?;
    write(&folder.path().join("file.ts"), &program.text)?;
    Ok(folder)
}

/// Writes a file; an error names it.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).map_err(|e| Error::io(path, e))
}
