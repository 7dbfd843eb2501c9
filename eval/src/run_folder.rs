//! Checks that a folder of results is continued by the same protocol and model.

use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Writes a protocol to a new folder; refuses one that was begun under another protocol.
///
/// # Errors
/// When it was, or the file cannot be written.
pub(crate) fn check_unchanged<P: Serialize + DeserializeOwned + PartialEq>(
    protocol: &P,
    path: &Path,
) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else {
        let text = serde_json::to_string_pretty(protocol).map_err(|e| Error::new(e.to_string()))?;
        return write_atomic(path, text.as_bytes());
    };
    let earlier: P = serde_json::from_str(&text).map_err(|e| Error::io(path, e))?;
    if earlier == *protocol {
        return Ok(());
    }
    let [old, new] = [&earlier, protocol].map(|protocol| serde_json::to_value(protocol).unwrap_or_default());
    let mut keys = new.as_object().into_iter().flatten();
    let differing = keys.find(|(key, value)| old[key.as_str()] != **value);
    let differing = differing.map_or(String::new(), |(key, value)| {
        format!(" (`{key}` was {} and is {value} now)", old[key.as_str()])
    });
    let message = format!(
        "this run was begun under another protocol{differing}; choose another folder, or delete this one to start again"
    );
    Err(Error::new(message).at(path.display().to_string()))
}

/// Checks that a folder holds answers of the model with this fingerprint, or none.
///
/// # Errors
/// When it holds another model's, or the file cannot be written.
pub(crate) fn check_model(fingerprint: Option<&str>, path: &Path) -> Result<()> {
    let Some(fingerprint) = fingerprint else { return Ok(()) };
    match std::fs::read_to_string(path) {
        Ok(earlier) if earlier.trim() == fingerprint => Ok(()),
        Ok(_) => Err(Error::new(
            "this run was begun with another model or adapter; choose another folder, or delete this one to start again",
        )
        .at(path.display().to_string())),
        Err(_) => write_atomic(path, format!("{fingerprint}\n").as_bytes()),
    }
}
