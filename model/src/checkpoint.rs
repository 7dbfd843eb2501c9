//! A model folder: `config.json` and its weights, one safetensors file or shards with an index, mapped in place.

use crate::config::Config;
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
    /// Tensor name to index into `files`, for the tensors that the config calls for.
    place: BTreeMap<String, usize>,
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
        let place = expected.into_iter().map(|(name, _)| (name.clone(), found[&name])).collect();
        Ok(Checkpoint { folder, config, files, place })
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Size of the files in bytes.
    pub fn byte_len(&self) -> usize {
        self.files.iter().map(TensorFile::byte_len).sum()
    }

    /// The stored type and shape of a tensor.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.file(name)?.entry(name)
    }

    /// A weight's bytes as they are stored.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.file(name)?.bytes(name)
    }

    /// A weight ready for ops that compute in `compute`.
    ///
    /// BF16 is read in place under either compute type, F32 in place under F32; anything else is converted to
    /// `compute` in memory. The planning device gets the shape only.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn tensor(&self, device: &Device, name: &str, compute: DType) -> Result<Tensor> {
        let file = self.file(name)?;
        let entry = file.entry(name)?;
        let dtype = if entry.dtype == Dtype::BF16 { DType::BF16 } else { compute };
        if device.is_plan() {
            return Ok(device.empty(Label::Weights, entry.shape()?, dtype));
        }
        file.tensor(device, Label::Weights, name, dtype)
    }

    /// An own F32 copy of a weight, to be trained or changed.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn copy_f32(&self, device: &Device, name: &str) -> Result<Tensor> {
        let file = self.file(name)?;
        if device.is_plan() {
            return Ok(device.empty(Label::Weights, file.entry(name)?.shape()?, DType::F32));
        }
        file.copy(device, Label::Weights, name, DType::F32)
    }

    /// The type most weights are stored as; what a changed copy of the model should be written as.
    pub fn dtype(&self) -> DType {
        let embedding = &self.files[self.place["model.embed_tokens.weight"]];
        stored(embedding.entries()["model.embed_tokens.weight"].dtype).unwrap_or(DType::BF16)
    }

    /// Names the first weight that is NaN or infinite, in the order of a forward pass. Reads every weight.
    pub fn first_non_finite(&self) -> Option<String> {
        self.config.tensors().into_iter().find_map(|(name, _)| {
            let (index, value) = self.file(&name).ok()?.non_finite(&name).ok()??;
            Some(format!("{name}{index:?} is {value}"))
        })
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        let file = self.place.get(name).map(|&i| &self.files[i]);
        file.ok_or_else(|| Error::new(format!("the model has no tensor `{name}`")))
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
                    let weight = checkpoint.tensor(&device, &name, compute).unwrap();
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
        let exact = checkpoint.tensor(&device, "lm_head.weight", DType::F32).unwrap();
        let rounded = checkpoint.tensor(&device, "lm_head.weight", DType::BF16).unwrap();
        let expected = exact.slice::<f32>().unwrap().iter().map(|&x| half::bf16::from_f32(x));
        assert!(expected.eq(rounded.slice::<half::bf16>().unwrap().iter().copied()));
    }
}
