//! Output folders of models and adapters: complete or absent, and never written over other files.

use codelsi_engine::files::{replace_folder, write_atomic};
use codelsi_engine::{Error, Result};
use std::fs;
use std::path::Path;

/// Files of a model folder besides `config.json` and the weights.
const TOKENIZER_FILES: [&str; 10] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];
/// Folder of a model's chat templates for other uses, each a file.
const CHAT_TEMPLATES: &str = "additional_chat_templates";

/// Fills a temporary folder and renames it to `path`. Replaces an older folder if it is empty or has the file `marker`.
///
/// # Errors
/// When `path` is anything else, or the folder cannot be filled; then nothing has changed.
pub(crate) fn write_folder(path: &Path, marker: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_replaceable(path, marker)?;
    replace_folder(path, fill)
}

/// Checks that [`write_folder`] may write to `path`, for use before long work.
///
/// # Errors
/// When `path` is a file, or a folder with other content.
pub(crate) fn check_replaceable(path: &Path, marker: &str) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(path) else {
        return if path.exists() {
            Err(Error::io(path, "is not a folder; give another path"))
        } else {
            Ok(())
        };
    };
    if entries.next().is_none() || path.join(marker).exists() {
        return Ok(());
    }
    Err(Error::io(path, format!("holds other files (no {marker}) and is not overwritten; give another path")))
}

/// Copies a model's tokenizer, chat templates and generation settings, where they exist.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_tokenizer_files(from: &Path, to: &Path) -> Result<()> {
    let copy = |from: &Path, to: &Path| write_atomic(to, &fs::read(from).map_err(|e| Error::io(from, e))?);
    for name in TOKENIZER_FILES {
        let file = from.join(name);
        if file.exists() {
            copy(&file, &to.join(name))?;
        }
    }
    let templates = from.join(CHAT_TEMPLATES);
    if !templates.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&templates).map_err(|e| Error::io(&templates, e))? {
        let file = entry.map_err(|e| Error::io(&templates, e))?;
        if file.path().is_file() {
            copy(&file.path(), &to.join(CHAT_TEMPLATES).join(file.file_name()))?;
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
        write_folder(&out, "config.json", put).unwrap();
        write_folder(&out, "config.json", put).unwrap();
        let message = write_folder(&out, "adapter_config.json", put).unwrap_err().to_string();
        assert!(message.contains("other files"), "{message}");
        assert!(write_folder(&out.join("config.json"), "config.json", put).is_err());
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"1");
    }
}
