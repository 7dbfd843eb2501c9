//! Optimizer steps against float64 reference runs: losses, gradient norms and adapters after 1, 5 and 20 steps.

use approx::{abs_diff_eq, assert_abs_diff_eq};
use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_testing::shared;
use codelsi_train::TrainOptions;
use codelsi_train::pack::{Document, IGNORE_INDEX, PackedSequence};
use codelsi_train::schedule::CosineSchedule;
use codelsi_train::train_step::TrainStep;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;

fn floats(file: &SafeTensors, name: &str) -> Vec<f64> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect()
}

/// The rows of `train.<what>[batch]`, an I64 tensor (4, 2, T).
fn rows(file: &SafeTensors, what: &str, batch: usize) -> Vec<Vec<i64>> {
    let view = file.tensor(&format!("train.{what}")).unwrap();
    let (rows, length) = (view.shape()[1], view.shape()[2]);
    let all: Vec<i64> =
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    all.chunks(length).skip(batch * rows).take(rows).map(<[i64]>::to_vec).collect()
}

/// The rows of a batch without padding, each a micro-batch of its own.
fn micro_batches(file: &SafeTensors, batch: usize) -> Vec<PackedSequence> {
    let parts = ["input_ids", "attention_mask", "labels"].map(|what| rows(file, what, batch));
    let [ids, mask, labels] = &parts;
    let sequences = ids.iter().zip(mask).zip(labels).map(|((ids, mask), labels)| {
        let length = mask.iter().filter(|&&m| m == 1).count();
        let tokens = ids[..length].iter().map(|&id| id as u32).collect();
        let mut targets: Vec<i32> = labels[1..length].iter().map(|&label| label as i32).collect();
        targets.push(IGNORE_INDEX);
        PackedSequence::concat([&Document { tokens, targets }])
    });
    sequences.collect()
}

fn check(name: &str) {
    let Some(folder) = shared(Path::new("reference").join(name)) else {
        return;
    };
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let number = |key: &str| json["train"][key].as_f64();
    let options = TrainOptions {
        lr: number("lr").unwrap(),
        weight_decay: number("weight_decay").unwrap() as f32,
        clip: number("max_grad_norm").or(number("case_max_grad_norm")),
        dropout: 0.0,
        compute: DType::F32,
        ..TrainOptions::default()
    };
    let schedule = CosineSchedule { lr: options.lr, warmup: 5, total_steps: 25 };
    let base = Checkpoint::open(folder.join("model")).unwrap();
    let adapter = Adapter::load(folder.join("adapter"), base.config()).unwrap();
    let mut train_step = TrainStep::new(&Device::cpu(), &options, &base, Some(&adapter)).unwrap();
    for step in 1..=20 {
        let lr = schedule.lr_at(step);
        let expected_lr = json["train"]["learning_rates"][step - 1].as_f64().unwrap();
        assert_abs_diff_eq!(lr, expected_lr, epsilon = 1e-15);
        let stats = train_step.run(&micro_batches(&file, (step - 1) % 4), lr).unwrap();
        let loss = json["train"]["losses"][step - 1].as_f64().unwrap();
        let limit = json["tolerance_float32"]["train.losses"]["abs"].as_f64().unwrap();
        let within = abs_diff_eq!(stats.loss, loss, epsilon = limit);
        assert!(within, "{name}, step {step}: loss {} for {loss}", stats.loss);
        let norm = json["train"]["grad_norms_before_clipping"][step - 1].as_f64().unwrap();
        assert!(
            abs_diff_eq!(stats.grad_norm / norm, 1.0, epsilon = 1e-3),
            "{name}, step {step}: norm {stats:?} for {norm}"
        );
        if json["tolerance_float32"].get(format!("step{step}.A")).is_some() {
            check_adapter(name, &train_step, &adapter, &file, &json, step);
        }
    }
}

/// Checks that every matrix is within its tolerance, relative to its change since step 0.
fn check_adapter(
    name: &str,
    train_step: &TrainStep,
    start: &Adapter,
    file: &SafeTensors,
    json: &Value,
    step: usize,
) {
    for (path, tensor) in train_step.model().trainable() {
        let truth = floats(file, &format!("step{step}.base_model.model.{path}"));
        let pair = &start.modules[path.rsplit_once(".lora_").unwrap().0];
        let factor = if path.contains("lora_A") { "A" } else { "B" };
        let start = if factor == "A" { &pair.a } else { &pair.b }.slice::<f32>().unwrap();
        let ours = tensor.slice::<f32>().unwrap();
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut ours.iter().zip(&truth).map(|(a, b)| *a as f64 - b));
        let change = norm(&mut start.iter().zip(&truth).map(|(a, b)| *a as f64 - b));
        let tolerance = &json["tolerance_float32"][format!("step{step}.{factor}")]["rel_l2"];
        let limit = tolerance.as_f64().unwrap();
        assert!(
            error <= limit * change,
            "{name}, step {step}, {path}: {:.1e} of {limit:.1e}",
            error / change
        );
    }
}

#[test]
fn twenty_steps_follow_the_reference() {
    check("mha_f32");
}

#[test]
fn twenty_clipped_steps_follow_the_reference() {
    check("gqa_bf16_sharded");
}

#[test]
fn a_tied_model_follows_the_reference() {
    check("tied_f32");
}
