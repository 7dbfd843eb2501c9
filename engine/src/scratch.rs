//! Temporary folders in the system's folder for them, removed with their owner, or after it by the next process.

use crate::files::{is_stale, new_temporary, temporary_of, writer_of};
use crate::{Error, Result};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// The name before the process and the number.
const NAME: &str = "codelsi";

/// A folder of this process, removed with all its contents when dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
    /// Locked as long as the owner lives.
    _locked: File,
}

impl ScratchFolder {
    /// Creates an empty folder that only this user can open. The first call of a process removes those of dead processes.
    ///
    /// # Errors
    /// When the system's folder for temporary files cannot be written.
    pub fn new() -> Result<Self> {
        static SWEPT: Once = Once::new();
        let around = std::env::temp_dir();
        SWEPT.call_once(|| sweep(&around));
        let create = |path: &Path| DirBuilder::new().mode(0o700).create(path).and_then(|()| File::open(path));
        let created = new_temporary(&around.join(NAME), create);
        created.map(|(path, _locked)| ScratchFolder { path, _locked }).map_err(|e| Error::io(&around, e))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of dead processes. One that was created a moment ago has no lock yet, so its process is looked for
/// too.
fn sweep(around: &Path) {
    for entry in fs::read_dir(around).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = temporary_of(&name) == Some(NAME);
        let lives = |process: u32| Path::new(&format!("/proc/{process}")).exists();
        if is_ours && writer_of(&name).is_some_and(|process| !lives(process)) && is_stale(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_are_swept_and_those_of_the_living_are_not() {
        let around = tempfile::tempdir().unwrap();
        // No process has this number: it is above the kernel's largest.
        let dead = around.path().join(format!("{NAME}.7fffffff-0.tmp"));
        let living = around.path().join(format!("{NAME}.{:08x}-0.tmp", std::process::id()));
        let foreign = around.path().join("codelsi-notes");
        for folder in [&dead, &living, &foreign] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "x").unwrap();
        }
        let held = File::open(&dead).unwrap();
        held.lock().unwrap();
        sweep(around.path());
        assert!(dead.exists(), "its owner lives on another machine");
        drop(held);
        sweep(around.path());
        assert_eq!([&dead, &living, &foreign].map(|folder| folder.exists()), [false, true, true]);
    }

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = ScratchFolder::new().unwrap();
        let path = folder.path().to_path_buf();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
