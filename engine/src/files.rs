//! Atomic writes: a file or folder is written under a temporary name, flushed to disk, then renamed.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The end of a temporary name.
const TEMPORARY: &str = ".tmp";

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
    let io = |e| Error::io(path, e);
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let (temporary, file) = new_temporary(path, |path| File::create_new(path)).map_err(io)?;
    let written = (|| {
        let mut writer = BufWriter::new(file);
        fill(&mut writer)?;
        // The file stays open, and therefore locked, until it has its name.
        let file = writer.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
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
    let old = path.with_extension("old.tmp");
    let io = |e| Error::io(path, e);
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let create = |path: &Path| fs::create_dir(path).and_then(|()| File::open(path));
    let (temporary, _locked) = new_temporary(path, create).map_err(io)?;
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

/// Creates a file or folder beside `path` under a name that no other writer has, and locks it, so that others see whether
/// its owner lives.
fn new_temporary(
    path: &Path,
    create: impl Fn(&Path) -> std::io::Result<File>,
) -> std::io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        name.push(format!(".{process:08x}-{count}{TEMPORARY}"));
        let temporary = path.with_file_name(name);
        match create(&temporary) {
            Ok(file) => {
                // A file system without locks has no sweeping either.
                let _ = file.try_lock();
                return Ok((temporary, file));
            }
            // The name is that of a process of another machine, or of a dead one.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// The name of the output whose temporary name this is, if it is one.
pub(crate) fn temporary_of(name: &str) -> Option<&str> {
    let (output, own) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let (process, count) = own.split_once('-')?;
    let hex = process.len() >= 8 && process.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit())).then_some(output)
}

/// Returns whether the process that wrote a temporary file or folder is gone.
pub(crate) fn is_stale(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
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
