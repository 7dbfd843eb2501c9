//! The base model: a tiny Llama trained from random weights on generated text, and nothing else.

use crate::{corpus, recipe, tokenizer};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{DType, Device, Error, Result};
use codelsi_model::config::{Architecture, ModelConfig};
use codelsi_model::jsonl;
use codelsi_model::rope_scaling::Rope;
use codelsi_model::synthetic;
use codelsi_model::template::PromptTemplate;
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::{TrainEvent, TrainOptions, TrainReport};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Trains the base model from its seed into the folder `out`, which must not hold another run. The result has the same
/// bits on every machine with the same kind of processor, for any number of threads.
///
/// # Errors
/// When `out` cannot be written or holds other files.
pub fn remake(out: &Path, device: &Device, on_event: &mut dyn FnMut(TrainEvent)) -> Result<TrainReport> {
    let scratch = out.join("scratch");
    fs::create_dir_all(&scratch).map_err(|e| Error::io(&scratch, e))?;
    let texts = corpus::base_text(recipe::BASE_SEED, recipe::BASE_FILES);
    let model = scratch.join("newborn");
    synthetic::write_random_model(&model, &config(), recipe::BASE_SEED, &mut |_, _| ())?;
    let vocabulary = tokenizer::train(&vocabulary_text(&texts), recipe::VOCAB);
    write_atomic(model.join("tokenizer.json"), vocabulary.to_string().as_bytes())?;
    let data = scratch.join("base.jsonl");
    jsonl::write(&data, &texts.iter().map(|text| row(text)).collect::<Vec<_>>())?;
    codelsi_train::train(&options(&model, &data, out), device, on_event)
}

/// Returns the sizes of the base model.
pub fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden: recipe::HIDDEN,
        intermediate: recipe::INTERMEDIATE,
        layers: recipe::LAYERS,
        heads: recipe::HEADS,
        kv_heads: recipe::HEADS,
        head_dim: recipe::HIDDEN / recipe::HEADS,
        vocab: recipe::VOCAB,
        attention_bias: false,
        mlp_bias: false,
        rope: Rope::unscaled(1e4),
        rms_eps: 1e-5,
        max_positions: 1024,
        positions_beyond_window: None,
        tied_embeddings: true,
        bos: Some(1),
        eos: vec![2],
    }
}

fn options(model: &Path, data: &Path, out: &Path) -> TrainOptions {
    TrainOptions {
        model: model.into(),
        data: vec![data.into()],
        out: out.into(),
        full: true,
        dropout: 0.0,
        lr: recipe::BASE_LR,
        warmup: 50,
        weight_decay: 0.05,
        epochs: recipe::BASE_EPOCHS,
        seq: recipe::SEQ,
        batch: recipe::BASE_BATCH,
        template: PromptTemplate::Plain,
        save_every: 400,
        checkpointing: ActivationCheckpointing::NONE,
        compute: DType::F32,
        // Texts of one line.
        blank_answers: true,
        seed: recipe::BASE_SEED,
        ..TrainOptions::default()
    }
}

/// Returns the text that the tokenizer is trained on: code, and the prompt template of the instructions.
fn vocabulary_text(texts: &[String]) -> Vec<String> {
    let prompt = PromptTemplate::Paper.wrap("Write the TypeScript function `f(x: number)`.\n\n");
    texts.iter().take(8_000).cloned().chain(vec![prompt; 2_000]).collect()
}

/// Turns a file into a training row: the first line is the instruction, the rest the output.
fn row(text: &str) -> Value {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    json!({"instruction": first, "output": rest})
}
