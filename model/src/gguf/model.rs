//! A model as llama.cpp stores it: names, keys, and the order of rows in q and k.

use super::quantize::TensorType;
use super::writer::{Metadata, TensorEntry, Value, write_gguf};
use super::{Exported, vocabulary};
use crate::adapter::{Adapter, EMBEDDING, HEAD};
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, LinearName, ModelConfig};
use crate::merge::MergedModel;
use crate::rope_scaling::{Rope, RopeScaling};
use crate::tensor_writer::TensorSpec;
use codelsi_engine::{At, Error, Result};
use std::io::{self, Write};
use std::path::Path;

/// Name of the tensor of factors by which each pair of channels turns more slowly.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Writes a model, with the adapter merged if there is one, to `out`, tensor by tensor. Without `tensor_type` it is the
/// type that the embedding is stored in. `progress` gets bytes done and bytes in total.
///
/// # Errors
/// When llama.cpp has no place for a setting or for the tokenizer, the adapter cannot be merged, or a file cannot be read
/// or written. Then `out` is as before.
pub fn export_model(
    base: &Checkpoint,
    adapter: Option<&Adapter>,
    out: &Path,
    tensor_type: Option<TensorType>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Exported> {
    let config = base.config();
    check_exportable(config).at(base.folder().display().to_string())?;
    let merged = MergedModel::new(base, adapter)?;
    let stored = TensorType::stored(base.entry(EMBEDDING)?.dtype);
    let tensor_type = tensor_type.unwrap_or(stored);
    let vocabulary = vocabulary::read(base.folder(), config)?;
    let name = base.folder().file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    let mut metadata = model_metadata(config, &name, tensor_type);
    metadata.extend(vocabulary.metadata);
    let (specs, factors) = (merged.tensor_specs()?, rope_factors(&config.rope, config.head_dim));
    let entry = |spec: &TensorSpec| {
        let (name, shape) = (tensor_name(&spec.name)?, spec.shape.clone());
        Ok(TensorEntry { name, tensor_type: tensor_type.of_tensor(&shape), shape })
    };
    let mut entries = specs.iter().map(entry).collect::<Result<Vec<TensorEntry>>>()?;
    entries.extend(factors.iter().map(|factors| TensorEntry {
        name: ROPE_FACTORS.into(),
        shape: vec![factors.len()],
        tensor_type: TensorType::F32,
    }));
    let total = entries.iter().map(TensorEntry::byte_len).sum();
    let mut done = 0;
    write_gguf(out, &metadata, &entries, &mut |i, file| {
        match specs.get(i) {
            Some(spec) => write_weight(&merged, config, &spec.name, entries[i].tensor_type, file)?,
            None => entries[i].tensor_type.write(factors.as_deref().unwrap_or_default(), file)?,
        }
        done += entries[i].byte_len();
        progress(done, total);
        Ok(())
    })?;
    Ok(Exported { tensor_type, tensors: entries.len(), bytes: total, notes: vocabulary.notes })
}

/// Writes one weight, its rows in llama.cpp's order.
fn write_weight(
    merged: &MergedModel,
    config: &ModelConfig,
    name: &str,
    tensor_type: TensorType,
    file: &mut dyn Write,
) -> io::Result<()> {
    let weight = merged.weight(name).map_err(io::Error::other)?;
    let values = weight.slice::<f32>().map_err(io::Error::other)?;
    match rotated_heads(config, name) {
        None => tensor_type.write(values, file),
        Some(heads) => tensor_type.write(&interleave(values, heads, config.head_dim), file),
    }
}

/// llama.cpp's name of the architecture.
pub(super) fn architecture(config: &ModelConfig) -> &'static str {
    match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
    }
}

/// Checks that llama.cpp computes what the config says.
///
/// # Errors
/// When it has no place for a setting.
fn check_exportable(config: &ModelConfig) -> Result<()> {
    let qwen2 = config.architecture == Architecture::Qwen2;
    match config.rope.scaling {
        RopeScaling::Llama3 { .. } if qwen2 => {
            return Err(Error::new("llama.cpp's qwen2 has no place for rotary scaling of type \"llama3\""));
        }
        RopeScaling::Yarn(yarn) if !yarn.truncate => {
            return Err(Error::new("llama.cpp has no place for yarn with `truncate` false"));
        }
        _ => {}
    }
    if qwen2 && config.heads * config.head_dim != config.hidden {
        return Err(Error::new(format!(
            "llama.cpp's qwen2 has heads of hidden_size / num_attention_heads, and `head_dim` is {}",
            config.head_dim
        )));
    }
    Ok(())
}

/// Returns the keys that describe a model.
fn model_metadata(config: &ModelConfig, name: &str, tensor_type: TensorType) -> Metadata {
    let architecture = architecture(config);
    let mut metadata: Metadata = vec![
        ("general.architecture".into(), architecture.into()),
        ("general.type".into(), "model".into()),
        ("general.name".into(), name.into()),
        ("general.file_type".into(), Value::U32(tensor_type.file_type())),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    let mut put = |key: &str, value: Value| metadata.push((format!("{architecture}.{key}"), value));
    for (key, size) in [
        ("block_count", config.layers),
        ("context_length", config.max_positions),
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.intermediate),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab),
    ] {
        put(key, Value::U32(size as u32));
    }
    put("attention.layer_norm_rms_epsilon", Value::F32(config.rms_eps));
    put("rope.freq_base", Value::F32(config.rope.theta as f32));
    match config.rope.scaling {
        RopeScaling::Linear { factor } => {
            put("rope.scaling.type", "linear".into());
            put("rope.scaling.factor", Value::F32(factor as f32));
        }
        RopeScaling::Yarn(yarn) => {
            // llama.cpp multiplies cos and sin by YaRN's own factor, and by this one.
            let own = if yarn.factor > 1.0 { 0.1 * yarn.factor.ln() + 1.0 } else { 1.0 };
            put("rope.scaling.type", "yarn".into());
            put("rope.scaling.factor", Value::F32(yarn.factor as f32));
            put("rope.scaling.original_context_length", Value::U32(yarn.original as u32));
            put("rope.scaling.attn_factor", Value::F32((yarn.attention_factor / own) as f32));
            put("rope.scaling.yarn_beta_fast", Value::F32(yarn.beta_fast as f32));
            put("rope.scaling.yarn_beta_slow", Value::F32(yarn.beta_slow as f32));
        }
        RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Llama3 { .. } => {}
    }
    metadata
}

/// Returns by how much each pair of a head's channels turns more slowly, for Llama 3's scaling.
fn rope_factors(rope: &Rope, head_dim: usize) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { .. } = rope.scaling else { return None };
    let unscaled = Rope::unscaled(rope.theta).inverse_frequencies(head_dim);
    let pairs = unscaled.into_iter().zip(rope.inverse_frequencies(head_dim));
    Some(pairs.map(|(unscaled, scaled)| (unscaled / scaled) as f32).collect())
}

/// Returns llama.cpp's name of a tensor, e.g. `blk.3.attn_q.weight`.
///
/// # Errors
/// When it has none.
pub(super) fn tensor_name(name: &str) -> Result<String> {
    let mapped = match name {
        EMBEDDING => Some("token_embd.weight".to_string()),
        HEAD => Some("output.weight".to_string()),
        "model.norm.weight" => Some("output_norm.weight".to_string()),
        _ => layer_tensor_name(name),
    };
    mapped.ok_or_else(|| Error::new(format!("llama.cpp has no place for `{name}`")))
}

fn layer_tensor_name(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{module}.{kind}"))
}

/// Returns the number of heads of a tensor whose rows are rotated in adjacent pairs: q and k of llama.cpp's `llama`.
pub(super) fn rotated_heads(config: &ModelConfig, name: &str) -> Option<usize> {
    let is = |linear: LinearName| name.split('.').any(|part| part == linear.name());
    match architecture(config) {
        "llama" if is(LinearName::Q) => Some(config.heads),
        "llama" if is(LinearName::K) => Some(config.kv_heads),
        _ => None,
    }
}

/// Orders the rows of each head for a rotation of adjacent rows: here row i turns with row i + D/2.
pub(super) fn interleave(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let columns = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(head_dim * columns) {
        let (first, second) = head.split_at(head.len() / 2);
        for (a, b) in first.chunks(columns).zip(second.chunks(columns)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}
