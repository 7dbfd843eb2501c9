//! An adapter alone as llama.cpp stores it: pairs of tensors, and one alpha for all of them.

use super::Exported;
use super::model::{architecture, interleave, rotated_heads, tensor_name};
use super::quantize::TensorType;
use super::writer::{Metadata, TensorEntry, Value, write_gguf};
use crate::adapter::{Adapter, AdapterTensors, Method};
use crate::config::ModelConfig;
use crate::merge::adapted_weights;
use codelsi_engine::{Error, Result};
use std::io;
use std::path::Path;

/// Writes an adapter of a model of this config to `out`, in f32 without `tensor_type`.
///
/// # Errors
/// When llama.cpp has no place for the adapter's method or for weights that it brings in full, it does not fit the
/// model, or `out` cannot be written. Then `out` is as before.
pub fn export_adapter(
    config: &ModelConfig,
    adapter: &Adapter,
    out: &Path,
    tensor_type: Option<TensorType>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Exported> {
    check_exportable(adapter)?;
    let tensor_type = tensor_type.unwrap_or(TensorType::F32);
    let alpha = file_alpha(adapter);
    let name = out.file_stem().map_or("adapter".into(), |name| name.to_string_lossy().into_owned());
    let metadata: Metadata = vec![
        ("general.architecture".into(), architecture(config).into()),
        ("general.type".into(), "adapter".into()),
        ("general.name".into(), Value::Text(name)),
        ("general.file_type".into(), Value::U32(tensor_type.file_type())),
        ("general.quantization_version".into(), Value::U32(2)),
        ("adapter.type".into(), "lora".into()),
        ("adapter.lora.alpha".into(), Value::F32(alpha)),
    ];
    let (mut entries, mut modules) = (Vec::new(), Vec::new());
    for (weight, module) in adapted_weights(config, adapter)? {
        let name = tensor_name(&weight)?;
        for (suffix, tensor) in [("lora_a", &module.a), ("lora_b", &module.b)] {
            let (rows, columns) = tensor.shape().as_matrix();
            let (name, shape) = (format!("{name}.{suffix}"), vec![rows, columns]);
            entries.push(TensorEntry { tensor_type: tensor_type.of_tensor(&shape), name, shape });
        }
        modules.push((weight, module));
    }
    let bytes = entries.iter().map(TensorEntry::byte_len).sum();
    let mut done = 0;
    write_gguf(out, &metadata, &entries, &mut |i, file| {
        let (weight, module) = &modules[i / 2];
        match i % 2 {
            0 => entries[i].tensor_type.write(module.a.slice().map_err(io::Error::other)?, file)?,
            _ => {
                let b = scaled_b(config, adapter, weight, module, alpha).map_err(io::Error::other)?;
                entries[i].tensor_type.write(&b, file)?;
            }
        }
        done += entries[i].byte_len();
        progress(done, bytes);
        Ok(())
    })?;
    Ok(Exported { tensor_type, tensors: entries.len(), bytes, notes: Vec::new() })
}

/// Checks that pairs of A and B are all that the adapter has.
fn check_exportable(adapter: &Adapter) -> Result<()> {
    let method = adapter.config.method;
    let remedy = match method {
        Method::LowRank { dora: false, .. } => None,
        Method::LowRank { dora: true, .. } => Some("merge it into the model: --gguf"),
        Method::Mixture { .. } | Method::Bottleneck => Some("use it with `codelsi generate`"),
    };
    if let Some(remedy) = remedy {
        return Err(Error::new(format!("llama.cpp's adapter files have no place for {method}; {remedy}")));
    }
    match adapter.saved.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::new(format!(
            "the adapter brings `{name}` in full, for which llama.cpp's adapters have no place; merge it into the model: \
             --gguf"
        ))),
    }
}

/// The alpha of the file: the adapter's, but 0 stands for no scaling at all in llama.cpp.
fn file_alpha(adapter: &Adapter) -> f32 {
    if adapter.config.alpha == 0.0 { 1.0 } else { adapter.config.alpha }
}

/// Returns B in llama.cpp's order of rows, times what makes `alpha` / R of its pair this adapter's scaling.
fn scaled_b(
    config: &ModelConfig,
    adapter: &Adapter,
    weight: &str,
    module: &AdapterTensors,
    alpha: f32,
) -> Result<Vec<f32>> {
    let path = weight.strip_suffix(".weight").unwrap_or(weight);
    let rank = module.b.shape().as_matrix().1;
    let factor = f64::from(adapter.config.scaling(path)) * rank as f64 / f64::from(alpha);
    let b = module.b.slice::<f32>()?;
    // The scaling is rounded to f32: where it is alpha / R, B stays as it is.
    let is_one = (factor - 1.0).abs() < 1e-6;
    let scaled: Vec<f32> =
        b.iter().map(|&b| if is_one { b } else { (f64::from(b) * factor) as f32 }).collect();
    Ok(match rotated_heads(config, weight) {
        Some(heads) => interleave(&scaled, heads, config.head_dim),
        None => scaled,
    })
}
