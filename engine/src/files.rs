//! Atomic writes: a file or folder is written under a temporary name, flushed to disk, then renamed.

use crate::{Error, Result};
use rustix::fs::{CWD, RenameFlags};
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

/// Copies the files of a folder into another one, each atomically.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let entry = entry.map_err(|e| Error::io(from, e))?;
        let mut file = File::open(entry.path()).map_err(|e| Error::io(entry.path(), e))?;
        write_atomic_with(to.join(entry.file_name()), |out| std::io::copy(&mut file, out).map(drop))?;
    }
    Ok(())
}

/// Fills a folder under a temporary name, then renames it to `path` and removes an older folder of that name.
///
/// # Errors
/// When `fill` or the file system fails.
pub fn replace_folder(path: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
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
    let old = match path.exists() {
        true => Some(exchange(&temporary, path).map_err(io)?),
        false => fs::rename(&temporary, path).map(|()| None).map_err(io)?,
    };
    sync_parent(path).map_err(io)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(old);
    }
    Ok(())
}

/// Puts `new` in the place of `old` in one step, and returns where the old one is now. A file system that cannot exchange
/// two names renames twice; a crash between leaves both under other names.
fn exchange(new: &Path, old: &Path) -> std::io::Result<PathBuf> {
    if rustix::fs::renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok() {
        return Ok(new.to_path_buf());
    }
    let aside = old.with_extension("old.tmp");
    let _ = fs::remove_dir_all(&aside);
    fs::rename(old, &aside)?;
    fs::rename(new, old)?;
    Ok(aside)
}

/// Creates a file or folder beside `path` under a name that no other writer has, and locks it, so that others see whether
/// its owner lives.
pub(crate) fn new_temporary(
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
    parse_temporary(name).map(|(output, _)| output)
}

/// The process that wrote under this temporary name, if it is one.
pub(crate) fn writer_of(name: &str) -> Option<u32> {
    parse_temporary(name).map(|(_, process)| process)
}

fn parse_temporary(name: &str) -> Option<(&str, u32)> {
    let (output, own) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let (process, count) = own.split_once('-')?;
    let is_number = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let process = u32::from_str_radix(process, 16).ok().filter(|_| process.len() == 8)?;
    is_number.then_some((output, process))
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
