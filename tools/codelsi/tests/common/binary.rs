//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

pub fn codelsi() -> Command {
    Command::new(env!("CARGO_BIN_EXE_codelsi"))
}

/// Makes a small random model in `folder`.
pub fn make_model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    let made = codelsi().args(["mkmodel", "--shape", "tiny", "--out"]).arg(&model).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    model
}
