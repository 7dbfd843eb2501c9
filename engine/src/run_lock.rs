//! The lock of an output: one process writes to it at a time.
//!
//! The lock is `flock`'s on a file beside or in the output. It ends with the process, however that ends; the file is
//! removed by its owner, and one that a dead process left is taken over.

use crate::files::{is_stale, temporary_of};
use crate::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum depth of the folders of a run in which temporary files are swept.
const MAX_DEPTH: usize = 6;

/// The right to write to an output, until it is dropped.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    /// `None` where the file system has no locks.
    _file: Option<File>,
}

impl RunLock {
    /// Locks a folder that the run fills, creates it, and removes the temporary files of dead processes in it.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be written.
    pub fn folder(folder: &Path) -> Result<RunLock> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let lock = RunLock::take(folder, folder.join(".lock"))?;
        sweep(folder, &|_| true, MAX_DEPTH);
        Ok(lock)
    }

    /// Locks a file, or a folder that is written as a whole, by a file beside it; removes the temporary files that dead
    /// processes left of it.
    ///
    /// # Errors
    /// When another process holds it, or the folder around it cannot be written.
    pub fn beside(output: &Path) -> Result<RunLock> {
        let name = output.file_name().ok_or_else(|| Error::io(output, "names no file or folder to write"))?;
        let around = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(around).map_err(|e| Error::io(around, e))?;
        let name = name.to_string_lossy().into_owned();
        let lock = RunLock::take(output, around.join(format!(".{name}.lock")))?;
        sweep(around, &|of| of == name, 0);
        Ok(lock)
    }

    fn take(output: &Path, path: PathBuf) -> Result<RunLock> {
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = opened.map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    return Ok(RunLock { path, _file: Some(file) });
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = file.rewind().and_then(|()| (&mut file).take(32).read_to_string(&mut owner));
                    let digits = !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit());
                    let who = if digits { format!("process {owner}") } else { "another process".into() };
                    return Err(Error::io(
                        output,
                        format!("{who} writes to it; wait for its end, or give another --out"),
                    ));
                }
                Err(TryLockError::Error(e)) => {
                    eprintln!("{}: not locked ({e}); let no other process write to it", output.display());
                    return Ok(RunLock { path, _file: None });
                }
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while it is still locked: who opened it before sees that its path is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns whether `path` still leads to this file: its last owner may have removed it.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|a| fs::metadata(path).is_ok_and(|b| same(a, b)))
}

/// Removes the temporary files and folders that dead processes left of the outputs whose names `wanted` accepts, and those
/// in folders down to `depth`.
fn sweep(folder: &Path, wanted: &dyn Fn(&str) -> bool, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if temporary_of(&name).is_some_and(wanted) {
            if is_stale(&path) {
                let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.unwrap_or_else(|e| eprintln!("{}: not removed ({e})", path.display()));
            }
        } else if is_folder && depth > 0 {
            sweep(&path, wanted, depth - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_has_one_owner_and_its_lock_vanishes() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a/run");
        let first = RunLock::folder(&run).unwrap();
        let message = RunLock::folder(&run).unwrap_err().to_string();
        assert!(message.contains(&format!("process {} writes to it", std::process::id())), "{message}");
        drop(first);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0, "nothing is left");
        let _again = RunLock::folder(&run).unwrap();
        let rows = folder.path().join("b/rows.jsonl");
        let _lock = RunLock::beside(&rows).unwrap();
        assert!(RunLock::beside(&rows).is_err() && RunLock::beside(&folder.path().join("b/other")).is_ok());
    }

    #[test]
    fn a_lock_file_of_a_dead_process_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".lock"), "1").unwrap();
        RunLock::folder(folder.path()).unwrap();
    }

    #[test]
    fn many_threads_never_own_an_output_together() {
        let folder = tempfile::tempdir().unwrap();
        let (owners, taken) =
            (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    use std::sync::atomic::Ordering::SeqCst;
                    for _ in 0..300 {
                        if let Ok(_lock) = RunLock::folder(&folder.path().join("run")) {
                            assert_eq!(owners.fetch_add(1, SeqCst), 0);
                            taken.fetch_add(1, SeqCst);
                            owners.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }

    #[test]
    fn what_dead_processes_left_is_swept_and_the_living_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("checkpoints/step-00000015.0000abcd-3.tmp/inner")).unwrap();
        fs::write(at("rows.jsonl.0000abcd-0.tmp"), "half").unwrap();
        fs::write(at("notes.tmp"), "somebody's").unwrap();
        let alive = File::create(at("metrics.0000abcd-1.tmp")).unwrap();
        alive.lock().unwrap();
        let _lock = RunLock::folder(folder.path()).unwrap();
        let left: Vec<bool> = [
            "checkpoints/step-00000015.0000abcd-3.tmp",
            "rows.jsonl.0000abcd-0.tmp",
            "notes.tmp",
            "metrics.0000abcd-1.tmp",
        ]
        .map(|name| at(name).exists())
        .to_vec();
        assert_eq!(left, [false, false, true, true]);
    }
}
