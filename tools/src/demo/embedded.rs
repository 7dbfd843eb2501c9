//! The base model that the binary carries, and the sources of a demo run.

use super::World;
use super::tongues::TONGUES;
use crate::pipeline::Sources;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use std::fs;
use std::path::Path;

/// The files of the base model; `codelsi remake-base` makes them again.
const BASE: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../assets/base/config.json")),
    ("tokenizer.json", include_bytes!("../../assets/base/tokenizer.json")),
    ("model.safetensors", include_bytes!("../../assets/base/model.safetensors")),
];

/// Writes base model, repositories and problems of `seed` into `folder`; the private one has that many examples.
///
/// # Errors
/// When the folder cannot be written.
pub fn sources(folder: &Path, seed: u64, examples: usize) -> Result<Sources> {
    let model = folder.join("base");
    fs::create_dir_all(&model).map_err(|e| Error::io(&model, e))?;
    for (name, bytes) in BASE {
        write_atomic(model.join(name), bytes)?;
    }
    let paths = World::new(seed, examples).write(folder)?;
    Ok(Sources {
        model,
        public: vec![paths.public],
        private: vec![paths.private],
        problems: paths.general_problems,
        private_problems: Some(paths.private_problems),
        language_problems: Vec::new(),
    })
}

/// The same with what `folder` is given in other programming languages.
///
/// # Errors
/// When the folder cannot be written.
pub fn in_languages(mut sources: Sources, folder: &Path, seed: u64) -> Result<Sources> {
    for tongue in &TONGUES {
        let (public, problems) = tongue.write(folder, seed)?;
        sources.public.push(public);
        sources.language_problems.push(problems);
    }
    Ok(sources)
}
