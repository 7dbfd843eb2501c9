//! Atomic writes: a file or folder is written under a temporary name, flushed to disk, then renamed.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path` atomically: a crash or a full disk leaves the old file or none, never half of the new one.
///
/// # Errors
/// When the file system fails.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |w| w.write_all(bytes))
}

/// Writes a file like [`write_atomic`], with content that `fill` produces piece by piece.
///
/// # Errors
/// When `fill` or the file system fails.
pub fn write_atomic_with(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary_path(path);
    let written = (|| {
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let mut writer = BufWriter::new(File::create(&temporary)?);
        fill(&mut writer)?;
        writer.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

/// Fills a folder under a temporary name, then renames it to `path` and removes an older folder of that name.
///
/// # Errors
/// When `fill` or the file system fails.
pub fn replace_folder(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let (temporary, old) = (temporary_path(path), path.with_extension("old.tmp"));
    let io = |e| Error::io(path, e);
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).map_err(io)?;
    if let Err(e) = fill(&temporary) {
        let _ = fs::remove_dir_all(&temporary);
        return Err(e);
    }
    sync_folder(&temporary).map_err(io)?;
    if path.exists() {
        let _ = fs::remove_dir_all(&old);
        fs::rename(path, &old).map_err(io)?;
    }
    fs::rename(&temporary, path).map_err(io)?;
    sync_parent(path).map_err(io)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}
