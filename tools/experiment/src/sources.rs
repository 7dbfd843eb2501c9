//! Input files of an experiment.

use codelsi_demo::DemoFiles;
use codelsi_demo::languages::LANGUAGES;
use codelsi_engine::{Error, Result};
use std::path::{Path, PathBuf};

/// Input files of an experiment.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Folder of the base model.
    pub model: PathBuf,
    /// Public repositories or corpora.
    pub public: Vec<PathBuf>,
    /// Private repositories or corpora.
    pub private: Vec<PathBuf>,
    /// General problems in TypeScript.
    pub problems: PathBuf,
    /// Problems over the private code.
    pub private_problems: Option<PathBuf>,
    /// Problems in other languages, one file per language.
    pub language_problems: Vec<PathBuf>,
}

impl Sources {
    /// Writes the demo's files of `seed` into `folder`, and prints what its problems are like.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn demo(folder: &Path, seed: u64) -> Result<Self> {
        let DemoFiles { model, dataset, description } = codelsi_demo::write(folder, seed)?;
        eprintln!("{description}");
        Ok(Sources {
            model,
            public: vec![dataset.public],
            private: vec![dataset.private],
            problems: dataset.general_problems,
            private_problems: Some(dataset.private_problems),
            language_problems: Vec::new(),
        })
    }

    /// Adds the demo's files in other programming languages, written into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn with_demo_languages(mut self, folder: &Path, seed: u64) -> Result<Self> {
        for language in &LANGUAGES {
            let (public, problems) = language.write(folder, seed)?;
            self.public.push(public);
            self.language_problems.push(problems);
        }
        Ok(self)
    }

    /// Checks that every file exists, before hours of training.
    ///
    /// # Errors
    /// When a path does not exist.
    pub fn check(&self) -> Result<()> {
        let files = [&self.problems].into_iter().chain(&self.private_problems).chain(&self.language_problems);
        let missing = self.public.iter().chain(&self.private).chain(files).find(|path| !path.exists());
        missing.map_or(Ok(()), |path| Err(Error::io(path, "no such file or folder")))
    }
}
