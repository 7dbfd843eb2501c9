//! Merges an adapter into its base model: W + s B A for every adapted linear, for DoRA with each row scaled to its
//! magnitude m.

use crate::adapter::{Adapter, AdapterConfig, AdapterTensors, EMBEDDING, HEAD};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::output_folder::{check_replaceable, copy_tokenizer_files, write_folder};
use crate::tensor_writer::{MAX_SHARD_BYTES, TensorSpec, write_json, write_model};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::gemm::cpu::{AccumulatorInit, Precision};
use codelsi_kernels::gemm::{multiply_into, nn};
use codelsi_kernels::simd::Storage;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// A base and an adapter as one model, whose weights are formed when they are asked for.
pub struct MergedModel<'a> {
    base: &'a Checkpoint,
    adapter: Option<&'a Adapter>,
    adapted: BTreeMap<String, &'a AdapterTensors>,
    /// True if the base is tied and the adapter's embedding and head are not one.
    unties: bool,
}

impl<'a> MergedModel<'a> {
    /// Joins a base and an adapter; without one, the weights are the base's.
    ///
    /// # Errors
    /// When the adapter cannot be merged or does not fit the base.
    pub fn new(base: &'a Checkpoint, adapter: Option<&'a Adapter>) -> Result<Self> {
        let Some(adapter) = adapter else {
            return Ok(MergedModel { base, adapter: None, adapted: BTreeMap::new(), unties: false });
        };
        adapter.config.method.check_mergeable()?;
        let (adapted, unties) = (adapted_weights(base.config(), adapter)?, unties(base, adapter)?);
        Ok(MergedModel { base, adapter: Some(adapter), adapted, unties })
    }

    /// The tensors, in their stored types; the head is one of them where it is not the embedding.
    ///
    /// # Errors
    /// None that is known.
    pub fn tensor_specs(&self) -> Result<Vec<TensorSpec>> {
        tensor_specs(self.base, self.unties)
    }

    /// Returns a weight in f32.
    ///
    /// # Errors
    /// When the model has no such weight, or it cannot be read.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        match self.changed_weight(name)? {
            Some(weight) => Ok(weight),
            None => self.base.copy_f32(&Device::cpu(), self.stored_name(name)),
        }
    }

    /// Returns a weight that the adapter changes or replaces, in f32.
    fn changed_weight(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(adapter) = self.adapter else { return Ok(None) };
        match (adapter.saved.get(name), self.adapted.get(name)) {
            (Some(saved), _) => Ok(Some(saved.clone())),
            (None, Some(module)) => merged_weight(self.base, name, module, &adapter.config).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The base's name of a weight that the adapter does not change.
    fn stored_name<'n>(&self, name: &'n str) -> &'n str {
        if self.unties && name == HEAD { EMBEDDING } else { name }
    }
}

/// Writes the merged model to `out`, tensor by tensor: memory holds one linear at a time. Sums are formed in f32
/// and rounded once, to the type that the base is stored in. `progress` gets bytes done and bytes in total. `check` gets
/// the folder of the complete model before it becomes `out`.
///
/// # Errors
/// When the adapter cannot be merged or does not fit the base, `check` fails, or `out` is the base itself, holds other
/// files or cannot be written. Then `out` is as before.
pub fn merge(
    base: &Checkpoint,
    adapter: &Adapter,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
    check: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<()> {
    adapter.config.method.check_mergeable()?;
    check_replaceable(out, "config.json")?;
    if out.canonicalize().is_ok_and(|out| base.folder().canonicalize().is_ok_and(|base| base == out)) {
        return Err(Error::io(out, "is the base model itself; give another folder"));
    }
    let merged = MergedModel::new(base, Some(adapter))?;
    let specs = merged.tensor_specs()?;
    let total = specs.iter().map(TensorSpec::byte_len).sum();
    let mut done = 0;
    write_folder(out, "config.json", |out| {
        write_config(base.folder(), out, merged.unties)?;
        copy_tokenizer_files(base.folder(), out)?;
        write_model(out, &specs, MAX_SHARD_BYTES, &mut |spec, file| {
            match merged.changed_weight(&spec.name).map_err(io::Error::other)? {
                Some(weight) => write_as(spec.dtype, weight.slice().map_err(io::Error::other)?, file)?,
                None => {
                    let stored = merged.stored_name(&spec.name);
                    file.write_all(base.bytes(stored).map_err(io::Error::other)?)?;
                }
            }
            done += spec.byte_len();
            progress(done, total);
            Ok(())
        })?;
        check(out)
    })
}

/// Returns W + s B A in f32; for DoRA m ⊙ (W + s B A) / ‖W + s B A‖, row by row.
///
/// # Errors
/// When the base has no such weight, or the shapes differ.
pub fn merged_weight(
    base: &Checkpoint,
    name: &str,
    module: &AdapterTensors,
    settings: &AdapterConfig,
) -> Result<Tensor> {
    let device = Device::cpu();
    let mut weight = base.copy_f32(&device, name)?;
    let mut product = device.empty(Label::Scratch, *weight.shape(), DType::F32);
    multiply_into(&mut product, AccumulatorInit::Zero, &[nn(&module.b, &module.a)?], Precision::F32)?;
    let path = name.strip_suffix(".weight").unwrap_or(name);
    let (columns, scaling) = (weight.shape().as_matrix().1, settings.scaling(path));
    let magnitudes = module.extra.as_ref().map(|m| m.slice::<f32>()).transpose()?;
    let (w, ba) = (weight.slice_mut::<f32>()?, product.slice::<f32>()?);
    w.par_chunks_mut(columns).zip(ba.par_chunks(columns)).enumerate().for_each(|(j, (w, ba))| {
        for (w, ba) in w.iter_mut().zip(ba) {
            *w += scaling * ba;
        }
        if let Some(m) = magnitudes {
            let norm = w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
            let factor = (f64::from(m[j]) / norm) as f32;
            w.iter_mut().for_each(|w| *w *= factor);
        }
    });
    Ok(weight)
}

/// Returns the adapter's tensors by the name of the weight that they adapt.
///
/// # Errors
/// When the adapter does not fit the base.
pub(crate) fn adapted_weights<'a>(
    config: &ModelConfig,
    adapter: &'a Adapter,
) -> Result<BTreeMap<String, &'a AdapterTensors>> {
    let mut adapted = BTreeMap::new();
    for expected in adapter.config.adapted_modules(config) {
        let Some(module) = adapter.modules.get(&expected.path) else { continue };
        if module.tensors().zip(&expected.tensor_shapes).any(|(t, shape)| t.shape()[..] != shape[..]) {
            let (a, b, (out, inner)) = (module.a.shape(), module.b.shape(), expected.shape);
            return Err(Error::new(format!("A is {a}, B is {b}; the weight is ({out}, {inner})")))
                .at(expected.path);
        }
        adapted.insert(expected.weight(), module);
    }
    if adapted.len() == adapter.modules.len() {
        return Ok(adapted);
    }
    Err(Error::new(format!(
        "the adapter changes {} linears, the model has {} of them: it belongs to another model",
        adapter.modules.len(),
        adapted.len()
    )))
}

/// True if the base is tied and the adapter's embedding and head are not one.
fn unties(base: &Checkpoint, adapter: &Adapter) -> Result<bool> {
    if !base.config().tied_embeddings {
        return Ok(false);
    }
    match [EMBEDDING, HEAD].map(|name| adapter.saved.get(name)) {
        [None, None] => Ok(false),
        [Some(embedding), Some(head)] => Ok(embedding.bytes()? != head.bytes()?),
        _ => Ok(true),
    }
}

/// Describes the base's tensors, to be written in their stored types, and the head where it is no longer tied.
fn tensor_specs(base: &Checkpoint, unties: bool) -> Result<Vec<TensorSpec>> {
    let stored = base.config().tensor_shapes().into_iter();
    let spec =
        |(name, shape): (String, Vec<usize>)| Ok(TensorSpec { dtype: base.entry(&name)?.dtype, name, shape });
    let mut specs = stored.map(spec).collect::<Result<Vec<TensorSpec>>>()?;
    if unties {
        let embedding = specs.iter().find(|spec| spec.name == EMBEDDING);
        let head = embedding.map(|spec| TensorSpec { name: HEAD.into(), shape: spec.shape.clone(), ..*spec });
        specs.extend(head);
    }
    Ok(specs)
}

/// Copies the base's `config.json`, with the head no longer tied if the adapter `unties` it.
fn write_config(base: &Path, out: &Path, unties: bool) -> Result<()> {
    let path = base.join("config.json");
    let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    if !unties {
        return write_atomic(out.join("config.json"), &bytes);
    }
    let mut config: Value = serde_json::from_slice(&bytes).map_err(|e| Error::io(&path, e))?;
    config["tie_word_embeddings"] = false.into();
    write_json(out.join("config.json"), &config)
}

/// Writes f32 values as `dtype`, rounded to nearest even.
fn write_as(dtype: Dtype, weight: &[f32], file: &mut dyn Write) -> io::Result<()> {
    match dtype {
        Dtype::F16 => {
            let mut narrow = vec![f16::ZERO; weight.len()];
            narrow.convert_from_f32_slice(weight);
            file.write_all(bytemuck::cast_slice(&narrow))
        }
        Dtype::BF16 => {
            let narrow: Vec<bf16> = weight.par_iter().map(|&x| bf16::put(x)).collect();
            file.write_all(bytemuck::cast_slice(&narrow))
        }
        _ => file.write_all(bytemuck::cast_slice(weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Method;
    use crate::checkpoint::{TensorFile, TensorSlice};
    use crate::config::LinearName;
    use crate::synthetic;
    use codelsi_testing::shared;

    #[test]
    fn merged_weights_are_the_golden_ones() {
        let Some(case) = shared("reference/mha_f32") else { return };
        let base = Checkpoint::open(case.join("model")).unwrap();
        let adapter = Adapter::load(case.join("adapter"), base.config()).unwrap();
        let golden = TensorFile::open(case.join("reference.safetensors")).unwrap();
        let text = fs::read_to_string(case.join("reference.json")).unwrap();
        let limit = serde_json::from_str::<Value>(&text).unwrap()["tolerance_float32"]["merged"].clone();
        let mut seen = 0;
        for name in golden.entries().keys().filter_map(|name| name.strip_prefix("merged.")) {
            let truth = golden.tensor(
                &Device::cpu(),
                Label::Weights,
                &format!("merged.{name}"),
                &TensorSlice::Full,
                DType::F32,
            );
            let module = &adapter.modules[name.strip_suffix(".weight").unwrap()];
            let ours = merged_weight(&base, name, module, &adapter.config).unwrap();
            let (ours, truth) = (ours.slice::<f32>().unwrap(), truth.unwrap());
            let truth = truth.slice::<f32>().unwrap();
            let square = |x: f32| x as f64 * x as f64;
            let error: f64 = ours.iter().zip(truth).map(|(a, b)| square(a - b)).sum();
            let relative = (error / truth.iter().map(|&x| square(x)).sum::<f64>()).sqrt();
            assert!(relative <= limit["rel_l2"].as_f64().unwrap(), "{name}: {relative:e}");
            seen += 1;
        }
        assert_eq!(seen, 7);
    }

    #[test]
    fn the_merged_folder_is_a_model_of_the_same_kind_with_all_files_beside_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (folder.path().join("model"), folder.path().join("merged"));
        let config = synthetic::config("tiny").unwrap();
        synthetic::write_random_model(&model, &config, 1, &mut |_, _| {}).unwrap();
        let companions = [
            "tokenizer.json",
            "added_tokens.json",
            "vocab.json",
            "merges.txt",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
        ];
        for name in companions {
            write_atomic(model.join(name), name.as_bytes()).unwrap();
        }
        let base = Checkpoint::open(&model).unwrap();
        let mut adapter =
            Adapter::init_lora(&config, 4, 8.0, 0.0, &[LinearName::K, LinearName::Down], 2).unwrap();
        for module in adapter.modules.values_mut() {
            module.b.slice_mut::<f32>().unwrap().fill(0.125);
        }
        merge(&base, &adapter, &out, &mut |_, _| {}, &mut |_| Ok(())).unwrap();
        let after = Checkpoint::open(&out).unwrap();
        assert_eq!(after.config(), base.config());
        for (name, _) in config.tensor_shapes() {
            let (a, b) = (base.bytes(&name).unwrap(), after.bytes(&name).unwrap());
            let adapted = name.contains("k_proj") || name.contains("down_proj");
            assert_eq!(a == b, !adapted, "{name}");
        }
        let name = "model.layers.1.mlp.down_proj";
        let exact =
            merged_weight(&base, &format!("{name}.weight"), &adapter.modules[name], &adapter.config).unwrap();
        let rounded = exact.slice::<f32>().unwrap().iter().map(|&x| bf16::from_f32(x));
        let written =
            bytemuck::pod_collect_to_vec::<u8, bf16>(after.bytes(&format!("{name}.weight")).unwrap());
        assert!(rounded.eq(written));
        for name in companions {
            assert_eq!(fs::read(out.join(name)).unwrap(), name.as_bytes());
        }
        let bad = |folder: &Path| {
            assert!(folder.join("model.safetensors").exists());
            Err(Error::new("bad logits"))
        };
        let elsewhere = folder.path().join("elsewhere");
        let message = merge(&base, &adapter, &elsewhere, &mut |_, _| {}, &mut { bad }).unwrap_err();
        assert_eq!(message.to_string(), "bad logits");
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "a merge that fails leaves nothing: {left:?}");

        let method = Method::Mixture { experts: 2 };
        let mixture =
            Adapter { config: AdapterConfig { method, ..adapter.config.clone() }, ..adapter.clone() };
        let message = merge(&base, &mixture, &out, &mut |_, _| {}, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("a mixture of 2 LoRA experts cannot be merged"), "{message}");
        let message =
            merge(&base, &adapter, &model, &mut |_, _| {}, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("base model itself"), "{message}");
        let other = ModelConfig { layers: 3, ..config };
        let foreign = Adapter::init_lora(&other, 4, 8.0, 0.0, &[LinearName::K], 2).unwrap();
        let message = merge(&base, &foreign, &out, &mut |_, _| {}, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("another model"), "{message}");
    }
}
