//! The temporary folders in which programs are compiled and run.

use crate::problem::CandidateProgram;
use codelsi_engine::{Error, Result, ScratchFolder};
use std::fs;
use std::path::Path;

/// Creates a temporary folder with the program in `file.ts`.
pub fn program_folder(program: &CandidateProgram) -> Result<ScratchFolder> {
    let folder = ScratchFolder::new()?;
    write(&folder.path().join("file.ts"), &program.text)?;
    Ok(folder)
}

/// Writes a file; an error names it.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).map_err(|e| Error::io(path, e))
}
