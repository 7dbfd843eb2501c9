//! A tiny Llama with a character tokenizer, and rows to train it on.

use codelsi_engine::DType;
use codelsi_engine::rng::RngKey;
use codelsi_model::config::{Architecture, ModelConfig};
use codelsi_model::rope_scaling::Rope;
use codelsi_model::template::PromptTemplate;
use codelsi_model::tensor_writer::{TensorSpec, write_json, write_model};
use codelsi_train::TrainOptions;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Writes a new model and data set to `folder` and returns options for a few steps.
pub fn prepare(folder: &Path) -> TrainOptions {
    write_base(&folder.join("base"));
    let word = |i: usize| -> String {
        (0..3).map(|j| char::from(b'a' + ((i % 5 * 7 + j * 5) % 26) as u8)).collect()
    };
    let rows: Vec<Value> = (0..30)
        .map(|i| json!({"instruction": format!("say {}", word(i)), "output": word(i).repeat(1 + i % 4)}))
        .collect();
    codelsi_model::jsonl::write(folder.join("data.jsonl"), &rows).unwrap();
    TrainOptions {
        model: folder.join("base"),
        data: vec![folder.join("data.jsonl")],
        out: folder.join("out"),
        rank: 4,
        alpha: 8.0,
        dropout: 0.1,
        lr: 2e-2,
        warmup: 2,
        epochs: 3,
        seq: 48,
        batch: 4,
        micro_batch: 2,
        template: PromptTemplate::Plain,
        validation: 4,
        validate_every: 4,
        save_every: 3,
        compute: DType::F32,
        ..TrainOptions::default()
    }
}

fn write_base(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let config = ModelConfig {
        architecture: Architecture::Llama,
        hidden: 16,
        intermediate: 24,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        vocab: 40,
        attention_bias: false,
        mlp_bias: false,
        rope: Rope::unscaled(1e4),
        rms_eps: 1e-5,
        max_positions: 64,
        positions_beyond_window: None,
        tied_embeddings: false,
        bos: Some(1),
        eos: vec![2],
    };
    write_json(folder.join("config.json"), &config.to_json(DType::F32)).unwrap();
    write_json(folder.join("tokenizer.json"), &tokenizer()).unwrap();
    let specs: Vec<TensorSpec> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| TensorSpec { name, dtype: Dtype::F32, shape })
        .collect();
    let mut site = 0;
    write_model(folder, &specs, usize::MAX, &mut |spec, out| {
        site += 1;
        let key = RngKey { seed: 7, step: 0, site };
        let elements = spec.shape.iter().product::<usize>() as u32;
        let value = |i| if spec.name.contains("norm") { 1.0 } else { 0.2 * key.normal(i, 0) };
        let values: Vec<f32> = (0..elements).map(value).collect();
        out.write_all(bytemuck::cast_slice(&values))
    })
    .unwrap();
}

/// A tokenizer of single characters that, as Llama's, puts a space before a text.
fn tokenizer() -> Value {
    let pieces = ["<unk>", "<s>", "</s>", "▁"].into_iter().map(String::from);
    let letters = ('a'..='z').chain(['\n']).map(String::from);
    let vocab: Map<String, Value> = pieces.chain(letters).enumerate().map(|(id, p)| (p, id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false})
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": []},
    })
}
