//! A model folder: `config.json` and its weights, one safetensors file or shards with an index, memory-mapped.

use super::convert::engine_dtype;
use super::slice::TensorSlice;
use super::tensor_file::{TensorEntry, TensorFile, summarize};
use super::transfer::LoadProgress;
use crate::config::ModelConfig;
use crate::hub;
use crate::random_weights::RandomWeights;
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use half::bf16;
use safetensors::Dtype;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// An opened model folder. Opening reads headers only; weights are read from the mapped files when they are loaded.
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
    files: Vec<TensorFile>,
    /// The tensors that the config calls for.
    tensors: BTreeMap<String, Location>,
    /// True if the planning device charges nothing for weights that the CPU would read in place.
    in_place: bool,
    progress: Option<LoadProgress>,
    /// True if the CPU keeps packed copies of the matrices.
    packed: bool,
    /// The content of a model without files.
    random: Option<RandomWeights>,
}

/// One tensor's entry, and the index of the file that holds it: none in a checkpoint of shapes only or of random weights.
#[derive(Clone)]
struct Location {
    entry: TensorEntry,
    file: Option<usize>,
}

impl Checkpoint {
    /// Opens a model folder and checks every tensor's name, shape and type against its config.
    /// Other tensors (rotary tables of old checkpoints) are ignored.
    ///
    /// # Errors
    /// When the config or a file is broken, or tensors are missing or have another shape or type than expected.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        hub::check_folder(&folder, "model")?;
        let config = ModelConfig::load(&folder)?;
        let (mut files, mut file_of) = open_files(&folder)?;
        if config.tied_embeddings {
            find_tied_embedding(&mut files, &mut file_of);
        }
        let expected = config.tensor_shapes();
        let mut mismatches: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| match file_of.get(name) {
                None => Some(format!("`{name}` is missing")),
                Some(&file) => mismatch(name, &files[file].entries()[name], shape),
            })
            .collect();
        let names: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
        let biases = file_of.keys().filter(|name| name.ends_with("_proj.bias") && !names.contains(name));
        mismatches
            .extend(biases.map(|name| format!("`{name}` is stored, which config.json does not call for")));
        if !mismatches.is_empty() {
            let (n, of) = (mismatches.len(), expected.len());
            let message = format!("{n} of {of} tensors do not fit config.json: {}", summarize(&mismatches));
            return Err(Error::new(message).at(folder.display().to_string()));
        }
        let location = |name: &str| {
            let file = file_of[name];
            Location { entry: files[file].entries()[name].clone(), file: Some(file) }
        };
        let tensors = expected.into_iter().map(|(name, _)| (name.clone(), location(&name))).collect();
        Ok(Checkpoint::new(folder, config, files, tensors))
    }

    fn new(
        folder: PathBuf,
        config: ModelConfig,
        files: Vec<TensorFile>,
        tensors: BTreeMap<String, Location>,
    ) -> Self {
        Checkpoint {
            folder,
            config,
            files,
            tensors,
            in_place: false,
            progress: None,
            packed: false,
            random: None,
        }
    }

    /// Returns a model of `config`'s shapes without weights, all stored as `dtype`, for the planning device.
    pub fn shapes_only(config: ModelConfig, dtype: Dtype) -> Self {
        let location = |shape| Location { entry: TensorEntry::without_file(dtype, shape), file: None };
        let tensors =
            config.tensor_shapes().into_iter().map(|(name, shape)| (name, location(shape))).collect();
        Checkpoint::new(PathBuf::new(), config, Vec::new(), tensors)
    }

    /// Returns a model of `config`'s shapes without files, whose bf16 weights are made on the device that they are loaded
    /// to: those of [`crate::synthetic::write_random_model`] with the same seed. A rank's slice of a tensor holds the
    /// tensor's first weights, whichever slice it is.
    pub fn random(config: ModelConfig, seed: u64) -> Self {
        let weights = RandomWeights::new(config.parameters(), seed);
        Checkpoint { random: Some(weights), ..Checkpoint::shapes_only(config, Dtype::BF16) }
    }

    /// Returns this model without its weights, for the planning device. With `in_place` the plan charges nothing
    /// for weights that the CPU would read in the mapped file.
    pub fn without_weights(&self, in_place: bool) -> Self {
        let location = |l: &Location| Location { file: None, ..l.clone() };
        let tensors = self.tensors.iter().map(|(name, l)| (name.clone(), location(l))).collect();
        let shapes = Checkpoint::new(self.folder.clone(), self.config.clone(), Vec::new(), tensors);
        Checkpoint { in_place: in_place && !self.is_random(), packed: self.packed, ..shapes }
    }

    /// Reports the loading of weights to a device to `progress`.
    pub fn with_progress(self, progress: LoadProgress) -> Self {
        Checkpoint { progress: Some(progress), ..self }
    }

    /// Keeps packed copies of the matrices that are multiplied, on the CPU, or none ([`super::PackWeights`]).
    pub fn with_packing(self, packed: bool) -> Self {
        Checkpoint { packed, ..self }
    }

    /// True if the CPU keeps packed copies of the matrices.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed
    }

    /// Size of the packed copies: of all matrices but the embedding, which is no factor unless the head is tied to it.
    pub fn packed_len(&self) -> usize {
        let matrices = self.tensors.iter().filter(|(name, location)| {
            let factor = self.config.tied_embeddings || !name.starts_with("model.embed_tokens");
            factor && location.entry.shape.len() == 2
        });
        matrices.map(|(_, location)| location.entry.byte_len()).sum()
    }

    /// The model's config.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Size of the files in bytes; without weights, the size that its tensors would have.
    pub fn byte_len(&self) -> usize {
        match self.files.is_empty() {
            true => self.tensors.values().map(|location| location.entry.byte_len()).sum(),
            false => self.files.iter().map(TensorFile::byte_len).sum(),
        }
    }

    /// Bytes that lie in the page cache once every weight has been read in place: none of random weights.
    pub fn mapped_len(&self) -> usize {
        if self.is_random() { 0 } else { self.byte_len() }
    }

    /// Returns the stored type and shape of a tensor.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn entry(&self, name: &str) -> Result<&TensorEntry> {
        self.location(name).map(|location| &location.entry)
    }

    /// Returns a weight's bytes as they are stored.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.file(name)?.bytes(name)
    }

    /// Returns a copy of a weight in F32, to be changed.
    ///
    /// # Errors
    /// When the model has no tensor of that name, or it cannot be read.
    pub fn copy_f32(&self, device: &Device, name: &str) -> Result<Tensor> {
        self.file(name)?.copy(device, Label::Weights, name, &TensorSlice::Full, DType::F32)
    }

    /// The engine's type for the stored weights (the embedding's; BF16 for F16), in which a changed model is written.
    pub fn dtype(&self) -> DType {
        let embedding = &self.tensors["model.embed_tokens.weight"];
        engine_dtype(embedding.entry.dtype).unwrap_or(DType::BF16)
    }

    /// Describes the first weight that is NaN or infinite, in the order of a forward pass, if there is one: its name,
    /// index and value. Reads every weight.
    pub fn first_non_finite(&self) -> Option<String> {
        self.config.tensor_shapes().into_iter().find_map(|(name, _)| {
            let (index, value) = self.file(&name).ok()?.non_finite(&name).ok()??;
            Some(format!("{name}{index:?} is {value}"))
        })
    }

    /// True if the planning device charges nothing for weights that the CPU would read in place.
    pub(super) fn plans_in_place(&self) -> bool {
        self.in_place
    }

    /// True if the weights are made on the device that they are loaded to.
    pub(super) fn is_random(&self) -> bool {
        self.random.is_some()
    }

    /// Returns the random weights of which a tensor's are read, and the index at which it begins.
    ///
    /// # Errors
    /// When this model has files, or no tensor of that name.
    pub(super) fn random_weights(&self, name: &str) -> Result<(&[bf16], usize)> {
        let index = self.config.tensor_shapes().iter().position(|(tensor, _)| tensor == name);
        let found = self.random.as_ref().zip(index);
        let found = found.map(|(weights, index)| (weights.block(), weights.start(index)));
        found.ok_or_else(|| Error::new(format!("`{name}` is no random weight")))
    }

    /// The callback for the progress of loading.
    pub(super) fn progress(&self) -> Option<&LoadProgress> {
        self.progress.as_ref()
    }

    /// Returns the file that holds a tensor.
    ///
    /// # Errors
    /// When the model has no tensor of that name, or no weights.
    pub(super) fn file(&self, name: &str) -> Result<&TensorFile> {
        let file = self.location(name)?.file.map(|i| &self.files[i]);
        file.ok_or_else(|| {
            Error::new(format!("`{name}` has no content: only the model's shapes were loaded"))
        })
    }

    fn location(&self, name: &str) -> Result<&Location> {
        self.tensors.get(name).ok_or_else(|| Error::new(format!("the model has no tensor `{name}`")))
    }
}

/// Opens the files of a model folder; returns them, and the index of each tensor's file.
fn open_files(folder: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if single.exists() {
        let file = TensorFile::open(single)?;
        let file_of = file.entries().keys().map(|name| (name.clone(), 0)).collect();
        return Ok((vec![file], file_of));
    }
    if !index.exists() {
        return Err(Error::io(folder, no_weights(folder)));
    }
    open_shards(folder, &index).at(index.display().to_string())
}

/// Describes what a folder without safetensors holds instead.
fn no_weights(folder: &Path) -> String {
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    match pickled.into_iter().find(|name| folder.join(name).exists()) {
        None => "holds neither model.safetensors nor model.safetensors.index.json".into(),
        Some(name) => format!(
            "holds {name}, which can run code when it is read, and no safetensors; convert it where PyTorch and \
             transformers are: python -c \"from transformers import AutoModelForCausalLM as M; \
             M.from_pretrained('{0}', dtype='auto').save_pretrained('{0}')\"",
            folder.display()
        ),
    }
}

/// Finds the embedding of a tied model under the head's name, where only that is stored.
fn find_tied_embedding(files: &mut [TensorFile], file_of: &mut BTreeMap<String, usize>) {
    let [embedding, head] = ["model.embed_tokens.weight", "lm_head.weight"];
    if let (None, Some(&file)) = (file_of.get(embedding), file_of.get(head)) {
        files[file].alias(head, embedding);
        file_of.insert(embedding.to_owned(), file);
    }
}

/// A parsed `model.safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Opens the shards that an index names.
fn open_shards(folder: &Path, index: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let text = fs::read_to_string(index).map_err(|e| Error::new(e.to_string()))?;
    let index: ShardIndex = serde_json::from_str(&text).map_err(|e| Error::new(format!("malformed: {e}")))?;
    let mut files: Vec<TensorFile> = Vec::new();
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut file_of = BTreeMap::new();
    for (name, shard) in &index.weight_map {
        let file = match opened.get(shard.as_str()) {
            Some(&file) => file,
            None => {
                if Path::new(shard).file_name().is_none_or(|plain| plain != shard.as_str()) {
                    return Err(Error::new(format!("shard `{shard}` is not a plain file name")));
                }
                files.push(TensorFile::open(folder.join(shard))?);
                opened.insert(shard, files.len() - 1);
                files.len() - 1
            }
        };
        if files[file].entries().contains_key(name) {
            file_of.insert(name.clone(), file);
        }
    }
    Ok((files, file_of))
}

/// Describes the difference between a stored tensor and the shape that the config calls for, if there is one.
fn mismatch(name: &str, entry: &TensorEntry, expected: &[usize]) -> Option<String> {
    if entry.shape != expected {
        return Some(format!("`{name}` is {:?}, expected {expected:?}", entry.shape));
    }
    let readable = matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    (!readable).then(|| format!("`{name}` is stored as {:?}, expected F32, F16 or BF16", entry.dtype))
}
