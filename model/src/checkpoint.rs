//! A model folder: `config.json` and its weights, one safetensors file or shards with an index, mapped in place.

use crate::config::Config;
use crate::loading::Loading;
use crate::part::Part;
use crate::tensor_file::{Entry, TensorFile, first_few, stored};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use safetensors::Dtype;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// An opened model folder. Weights stay in the page cache; opening reads headers only.
pub struct Checkpoint {
    folder: PathBuf,
    config: Config,
    files: Vec<TensorFile>,
    /// The tensors that the config calls for.
    tensors: BTreeMap<String, Place>,
    /// Whether the planning device charges nothing for what the host would read in place.
    in_place: bool,
    watch: Option<Watch>,
}

/// Is told of weights on their way to a device: bytes that have arrived, and bytes in all.
pub type Watch = Box<dyn Fn(usize, usize) + Send + Sync>;

/// One tensor: what is stored, and in which of the files; a sketch has none.
#[derive(Clone)]
struct Place {
    entry: Entry,
    file: Option<usize>,
}

impl Checkpoint {
    /// Opens a model folder and checks every tensor's name, shape and type against its config.
    /// Tensors beyond those (rotary tables of old checkpoints) are ignored.
    ///
    /// # Errors
    /// One line: what is wrong with the config or a file, or which tensors are missing or misshapen.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        if !folder.is_dir() {
            return Err(Error::io(&folder, "no such model folder"));
        }
        let config = Config::load(&folder)?;
        let (files, found) = open_files(&folder)?;
        let expected = config.tensors();
        let misfits: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| match found.get(name) {
                None => Some(format!("`{name}` is missing")),
                Some(&file) => misfit(name, &files[file].entries()[name], shape),
            })
            .collect();
        if !misfits.is_empty() {
            let (n, of) = (misfits.len(), expected.len());
            let message = format!("{n} of {of} tensors do not fit config.json: {}", first_few(&misfits));
            return Err(Error::new(message).at(folder.display().to_string()));
        }
        let place =
            |name: &str| Place { entry: files[found[name]].entries()[name].clone(), file: Some(found[name]) };
        let tensors = expected.into_iter().map(|(name, _)| (name.clone(), place(&name))).collect();
        Ok(Checkpoint { folder, config, files, tensors, in_place: false, watch: None })
    }

    /// A model of which nothing but the sizes is known, all of it stored as `dtype`: for the planning device.
    pub fn sketch(config: Config, dtype: Dtype) -> Self {
        let place = |shape| Place { entry: Entry::absent(dtype, shape), file: None };
        let tensors = config.tensors().into_iter().map(|(name, shape)| (name, place(shape))).collect();
        Checkpoint {
            folder: PathBuf::new(),
            config,
            files: Vec::new(),
            tensors,
            in_place: false,
            watch: None,
        }
    }

    /// The same model for the planning device, without its weights. With `in_place` nothing is charged for weights that
    /// the host would read in the mapped file.
    pub fn without_weights(&self, in_place: bool) -> Self {
        let place = |p: &Place| Place { file: None, ..p.clone() };
        let tensors = self.tensors.iter().map(|(name, p)| (name.clone(), place(p))).collect();
        let (folder, config) = (self.folder.clone(), self.config.clone());
        Checkpoint { folder, config, files: Vec::new(), tensors, in_place, watch: None }
    }

    /// Tells `watch` of weights that are loaded to a device.
    pub fn watched(self, watch: Watch) -> Self {
        Checkpoint { watch: Some(watch), ..self }
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Size of the files in bytes; of a model without weights, that of its tensors.
    pub fn byte_len(&self) -> usize {
        match self.files.is_empty() {
            true => self.tensors.values().map(|place| place.entry.byte_len()).sum(),
            false => self.files.iter().map(TensorFile::byte_len).sum(),
        }
    }

    /// The stored type and shape of a tensor.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.place(name).map(|place| &place.entry)
    }

    /// A weight's bytes as they are stored.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.file(name)?.bytes(name)
    }

    /// Weights on their way to `device`, to be had part by part.
    pub fn loading<'a>(&'a self, device: &'a Device) -> Loading<'a> {
        Loading::new(self, device)
    }

    /// An own F32 copy of a weight, to be trained or changed.
    ///
    /// # Errors
    /// When the model has no tensor of that name, or it cannot be read.
    pub fn copy_f32(&self, device: &Device, name: &str) -> Result<Tensor> {
        self.file(name)?.copy(device, Label::Weights, name, &Part::Whole, DType::F32)
    }

    /// The type most weights are stored as; what a changed copy of the model should be written as.
    pub fn dtype(&self) -> DType {
        let embedding = &self.tensors["model.embed_tokens.weight"];
        stored(embedding.entry.dtype).unwrap_or(DType::BF16)
    }

    /// Names the first weight that is NaN or infinite, in the order of a forward pass. Reads every weight.
    pub fn first_non_finite(&self) -> Option<String> {
        self.config.tensors().into_iter().find_map(|(name, _)| {
            let (index, value) = self.file(&name).ok()?.non_finite(&name).ok()??;
            Some(format!("{name}{index:?} is {value}"))
        })
    }

    /// Whether the planning device charges nothing for a part of a weight, since the host reads it in place as `dtype`.
    pub(crate) fn is_in_place(&self, entry: &Entry, part: &Part, dtype: DType) -> bool {
        self.in_place && stored(entry.dtype) == Some(dtype) && part.in_one_run(&entry.shape).is_some()
    }

    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| Error::new(format!("the model has no tensor `{name}`")))
    }

    pub(crate) fn file(&self, name: &str) -> Result<&TensorFile> {
        let file = self.place(name)?.file.map(|i| &self.files[i]);
        file.ok_or_else(|| Error::new(format!("`{name}` has no content: the model's sizes alone were given")))
    }
}

/// The files of a model folder, and which holds which tensor.
fn open_files(folder: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if single.exists() {
        let file = TensorFile::open(single)?;
        let found = file.entries().keys().map(|name| (name.clone(), 0)).collect();
        return Ok((vec![file], found));
    }
    if !index.exists() {
        return Err(Error::io(folder, "holds neither model.safetensors nor model.safetensors.index.json"));
    }
    open_shards(folder, &index).at(index.display().to_string())
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(folder: &Path, index: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let text = fs::read_to_string(index).map_err(|e| Error::new(e.to_string()))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| Error::new(format!("malformed: {e}")))?;
    let mut files: Vec<TensorFile> = Vec::new();
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = BTreeMap::new();
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
            found.insert(name.clone(), file);
        }
    }
    Ok((files, found))
}

fn misfit(name: &str, entry: &Entry, expected: &[usize]) -> Option<String> {
    if entry.shape != expected {
        return Some(format!("`{name}` is {:?}, expected {expected:?}", entry.shape));
    }
    let readable = matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    (!readable).then(|| format!("`{name}` is stored as {:?}, expected F32, F16 or BF16", entry.dtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::shared;

    fn reference(case: &str) -> Option<Checkpoint> {
        shared(&format!("reference/{case}/model")).map(|folder| Checkpoint::open(folder).unwrap())
    }

    #[test]
    fn opens_one_file_shards_tied_and_both_config_styles() {
        for (case, dtype) in [
            ("mha_f32", DType::F32),
            ("gqa_bf16_sharded", DType::BF16),
            ("tied_f32", DType::F32),
            ("hd128_bf16", DType::BF16),
        ] {
            let Some(checkpoint) = reference(case) else { return };
            assert_eq!((checkpoint.dtype(), checkpoint.first_non_finite()), (dtype, None), "{case}");
            for (name, shape) in checkpoint.config().tensors() {
                for (compute, expected) in [(DType::F32, dtype), (DType::BF16, DType::BF16)] {
                    let device = Device::cpu();
                    let weight = checkpoint.loading(&device).tensor(&name, &Part::Whole, compute).unwrap();
                    assert_eq!(
                        (&weight.shape()[..], weight.dtype()),
                        (&shape[..], expected),
                        "{case} {name}"
                    );
                    let copied = device.ledger().usage().total();
                    assert_eq!(
                        copied,
                        if dtype == expected { 0 } else { weight.byte_len() },
                        "mapped in place"
                    );
                }
            }
        }
    }

    #[test]
    fn conversion_rounds_to_nearest() {
        let Some(checkpoint) = reference("mha_f32") else { return };
        let device = Device::cpu();
        let exact = checkpoint.loading(&device).tensor("lm_head.weight", &Part::Whole, DType::F32).unwrap();
        let rounded =
            checkpoint.loading(&device).tensor("lm_head.weight", &Part::Whole, DType::BF16).unwrap();
        let expected = exact.slice::<f32>().unwrap().iter().map(|&x| half::bf16::from_f32(x));
        assert!(expected.eq(rounded.slice::<half::bf16>().unwrap().iter().copied()));
    }
}
