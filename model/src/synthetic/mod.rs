//! Model folders with random weights (`random_weights.rs`) in the shapes of known models: for tests, benches and memory
//! plans.

mod vocabulary;

use crate::config::{Architecture, ModelConfig};
use crate::output_folder::{check_replaceable, write_folder};
use crate::random_weights::{RandomWeights, is_norm};
use crate::rope_scaling::Rope;
use crate::tensor_writer::{MAX_SHARD_BYTES, TensorSpec, write_json, write_model};
use codelsi_engine::{DType, Error, Result};
use half::bf16;
use safetensors::Dtype;
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

/// Names of the shapes that [`config`] accepts.
pub const SHAPE_NAMES: [&str; 5] = ["code-llama-13b", "code-llama-7b", "tinyllama-1.1b", "110m", "tiny"];

/// Returns the config of a known model; `7b` is short for `code-llama-7b`, and `tiny` is this project's own, for tests.
///
/// # Errors
/// For any other name.
pub fn config(shape: &str) -> Result<ModelConfig> {
    let llama = |hidden, intermediate, layers, heads, kv_heads| ModelConfig {
        architecture: Architecture::Llama,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        vocab: 32000,
        attention_bias: false,
        mlp_bias: false,
        rope: Rope::unscaled(1e4),
        rms_eps: 1e-5,
        max_positions: 2048,
        positions_beyond_window: None,
        tied_embeddings: false,
        bos: Some(1),
        eos: vec![2],
    };
    let code =
        |config| ModelConfig { vocab: 32016, rope: Rope::unscaled(1e6), max_positions: 16384, ..config };
    Ok(match shape {
        "code-llama-13b" => code(llama(5120, 13824, 40, 40, 40)),
        "code-llama-7b" | "7b" => code(llama(4096, 11008, 32, 32, 32)),
        "tinyllama-1.1b" => llama(2048, 5632, 22, 32, 4),
        "110m" => llama(768, 2048, 12, 12, 12),
        "tiny" => ModelConfig { vocab: 512, max_positions: 512, ..llama(64, 112, 2, 4, 2) },
        _ => {
            return Err(Error::new(format!(
                "shape `{shape}` is unknown; choose from {}",
                SHAPE_NAMES.join(", ")
            )));
        }
    })
}

/// Writes a model folder: `config.json`, bf16 weights (in shards if large) and a tokenizer. `progress` gets bytes
/// done and bytes in total.
///
/// # Errors
/// When the disk has too little space, or `out` holds other files or cannot be written.
pub fn write_random_model(
    out: &Path,
    config: &ModelConfig,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    check_replaceable(out, "config.json")?;
    let specs: Vec<TensorSpec> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| TensorSpec { name, dtype: Dtype::BF16, shape })
        .collect();
    let total = specs.iter().map(TensorSpec::byte_len).sum();
    check_space(out, total)?;
    let weights = RandomWeights::new(config.parameters(), seed);
    let mut done = 0;
    write_folder(out, "config.json", |out| {
        write_json(out.join("config.json"), &config.to_json(DType::BF16))?;
        write_json(out.join("tokenizer.json"), &vocabulary::tokenizer(config.vocab))?;
        write_json(out.join("tokenizer_config.json"), &tokenizer_config(config))?;
        let index = |name: &str| specs.iter().position(|spec| spec.name == name).unwrap_or(0);
        write_model(out, &specs, MAX_SHARD_BYTES, &mut |spec, file| {
            let elements = spec.byte_len() / size_of::<bf16>();
            match is_norm(&spec.name) {
                true => file.write_all(bytemuck::cast_slice(&vec![bf16::ONE; elements]))?,
                false => write_cyclic(weights.block(), weights.start(index(&spec.name)), elements, file)?,
            }
            done += spec.byte_len();
            progress(done, total);
            Ok(())
        })
    })
}

fn tokenizer_config(config: &ModelConfig) -> serde_json::Value {
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": false,
        "eos_token": "</s>",
        "model_max_length": config.max_positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    })
}

/// Writes `elements` weights, reading the block cyclically from `start`.
fn write_cyclic(
    block: &[bf16],
    mut start: usize,
    mut elements: usize,
    file: &mut dyn Write,
) -> io::Result<()> {
    while elements > 0 {
        let run = &block[start..block.len().min(start + elements)];
        file.write_all(bytemuck::cast_slice(run))?;
        elements -= run.len();
        start = 0;
    }
    Ok(())
}

/// Checks that the disk has space for a model.
///
/// # Errors
/// When it has not.
fn check_space(out: &Path, bytes: usize) -> Result<()> {
    let absolute = std::path::absolute(out).map_err(|e| Error::io(out, e))?;
    let Some(existing) = absolute.ancestors().find(|folder| folder.exists()) else { return Ok(()) };
    let disk = rustix::fs::statvfs(existing).map_err(|e| Error::io(existing, e))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes as u64 <= free {
        return Ok(());
    }
    let gb = |bytes: u64| bytes as f64 / 1e9;
    Err(Error::io(
        out,
        format!("the model takes {:.1} GB, the disk has {:.1} GB free", gb(bytes as u64), gb(free)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::random_weights::DEVIATION;
    use crate::tokenizer::Tokenizer;
    use approx::assert_abs_diff_eq;
    use codelsi_engine::Device;

    #[test]
    fn shapes_have_their_published_sizes() {
        let millions = |shape| config(shape).unwrap().parameters() / 1_000_000;
        assert_eq!(SHAPE_NAMES.map(millions), [13_016, 6_738, 1_100, 134, 0]);
        assert!(config("8b").unwrap_err().to_string().contains("tinyllama-1.1b"));
    }

    #[test]
    fn the_tiny_model_opens_and_has_normal_weights() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny");
        let config = config("tiny").unwrap();
        let mut reports = Vec::new();
        write_random_model(&out, &config, 3, &mut |done, total| reports.push((done, total))).unwrap();
        assert_eq!(reports.last(), Some(&(2 * config.parameters(), 2 * config.parameters())));
        let checkpoint = Checkpoint::open(&out).unwrap();
        assert_eq!((checkpoint.config(), checkpoint.first_non_finite()), (&config, None));
        let weight = checkpoint.copy_f32(&Device::cpu(), "model.layers.1.mlp.up_proj.weight").unwrap();
        let w = weight.slice::<f32>().unwrap();
        let variance = w.iter().map(|x| x * x).sum::<f32>() / w.len() as f32;
        assert_abs_diff_eq!(variance.sqrt() / DEVIATION, 1.0, epsilon = 0.03);
        Tokenizer::load(&out).unwrap().check_fits(config.vocab).unwrap();
    }

    #[test]
    fn tensors_read_the_block_cyclically() {
        let block: Vec<bf16> = (0..5).map(|i| bf16::from_f32(i as f32)).collect();
        let mut bytes = Vec::new();
        write_cyclic(&block, 3, 9, &mut bytes).unwrap();
        let run: Vec<f32> =
            bytemuck::pod_collect_to_vec::<u8, bf16>(&bytes).iter().map(|x| x.to_f32()).collect();
        assert_eq!(run, [3.0, 4.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 1.0]);
    }

    #[test]
    fn a_full_disk_is_noticed_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let message = check_space(&folder.path().join("a/b"), 1 << 60).unwrap_err().to_string();
        assert!(message.contains("GB free"), "{message}");
    }
}
