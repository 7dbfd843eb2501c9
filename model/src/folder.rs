//! Model and adapter folders as they are written: whole or not at all, and never over somebody's other files.

use codelsi_engine::files::{replace_folder, write_atomic};
use codelsi_engine::{Error, Result};
use std::fs;
use std::path::Path;

/// Files of a model folder beside `config.json` and the weights.
const SIDE_FILES: [&str; 5] = [
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
];

/// Fills a new folder beside `path` and puts it there. An older one is replaced if it is of the same kind,
/// which it is when it is empty or has the file `marker`.
///
/// # Errors
/// When `path` is anything else, or the folder cannot be filled; then nothing has changed.
pub fn replace(path: &Path, marker: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_replaceable(path, marker)?;
    replace_folder(path, fill)
}

/// Refuses what [`replace`] would, before long work is begun.
///
/// # Errors
/// When `path` is a file, or a folder with other content.
pub fn check_replaceable(path: &Path, marker: &str) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(path) else {
        return if path.exists() { Err(Error::io(path, "is no folder; give another path")) } else { Ok(()) };
    };
    if entries.next().is_none() || path.join(marker).exists() {
        return Ok(());
    }
    Err(Error::io(path, format!("holds other files (no {marker}) and is not overwritten; give another path")))
}

/// Copies a model's tokenizer and generation settings, those there are.
///
/// # Errors
/// When one cannot be read or written.
pub fn copy_side_files(from: &Path, to: &Path) -> Result<()> {
    for name in SIDE_FILES {
        let file = from.join(name);
        if file.exists() {
            write_atomic(to.join(name), &fs::read(&file).map_err(|e| Error::io(&file, e))?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let put = |path: &Path| write_atomic(path.join("config.json"), b"1");
        replace(&out, "config.json", put).unwrap();
        replace(&out, "config.json", put).unwrap();
        let message = replace(&out, "adapter_config.json", put).unwrap_err().to_string();
        assert!(message.contains("other files"), "{message}");
        assert!(replace(&out.join("config.json"), "config.json", put).is_err());
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"1");
    }
}
