//! The base model that is embedded in the binary, written next to the generated dataset.

use crate::dataset::{DatasetFiles, DemoDataset};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of the base model; `codelsi remake-base` trains them again.
const BASE: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../assets/base/config.json")),
    ("tokenizer.json", include_bytes!("../assets/base/tokenizer.json")),
    ("model.safetensors", include_bytes!("../assets/base/model.safetensors")),
];

/// Files of a demo run.
pub struct DemoFiles {
    /// Folder of the base model.
    pub model: PathBuf,
    pub dataset: DatasetFiles,
    /// Description of the problems, in two lines.
    pub description: String,
}

/// Writes the base model and the repositories and problems of `seed` into `folder`.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(folder: &Path, seed: u64) -> Result<DemoFiles> {
    let model = folder.join("base");
    fs::create_dir_all(&model).map_err(|e| Error::io(&model, e))?;
    for (name, bytes) in BASE {
        write_atomic(model.join(name), bytes)?;
    }
    let dataset = DemoDataset::new(seed);
    Ok(DemoFiles { model, description: dataset.description(), dataset: dataset.write(folder)? })
}
