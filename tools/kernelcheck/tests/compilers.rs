//! Every variant of every kernel compiles with both NVRTC versions, for both architectures, without spills, local memory or
//! advisories of the assembler.
//!
//! A process loads one NVRTC, so each compiles in a process of its own.

use codelsi_testing::or_skip;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder beside `.tools/nvrtc` that `tools/test.sh` installs the second compiler into.
const SECOND: &str = ".tools/nvrtc-13.2";

#[test]
fn every_variant_compiles_cleanly_with_the_first_compiler() {
    if or_skip(codelsi_engine::cuda::Nvrtc::get()).is_some() {
        compiles_cleanly(None);
    }
}

#[test]
fn every_variant_compiles_cleanly_with_the_second_compiler() {
    if let Some(folder) = or_skip(library_folder(SECOND)) {
        let version = compiles_cleanly(Some(&folder));
        assert_eq!(version, "13.2");
    }
}

/// Returns the folder of the library in a folder of tools at the root of the project.
fn library_folder(tools: &str) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join(tools).join("nvidia/cu13/lib");
    let found = folder.join("libnvrtc.so.13").exists();
    if found { Ok(folder) } else { Err(format!("{tools} holds no NVRTC: run tools/test.sh")) }
}

/// Compiles all, by the library in `folder` or by the one that is found, and returns its version.
fn compiles_cleanly(folder: Option<&Path>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelcheck"));
    command.args(["resources", "--json"]);
    if let Some(folder) = folder {
        command.env("CODELSI_NVRTC", folder);
    }
    let output = command.output().unwrap();
    let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let json: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect(&errors);
    println!("NVRTC {}: {} kernels", json["nvrtc"], json["kernels"].as_array().unwrap().len());
    assert_eq!(json["failed"], Value::Array(Vec::new()));
    assert!(output.status.success() && json["kernels"].as_array().unwrap().len() > 500, "{errors}");
    json["nvrtc"].as_str().unwrap().to_owned()
}
