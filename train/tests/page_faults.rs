//! A training step on the CPU runs in the memory of the steps before it: the system gives it no new page.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_model::synthetic;
use codelsi_train::TrainOptions;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::train_step::TrainStep;

/// Page faults of this process so far that needed no file.
fn page_faults() -> usize {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn later_steps_touch_no_new_page() {
    const TOKENS: u32 = 300;
    let tiny = synthetic::config("tiny").unwrap();
    let config = ModelConfig {
        hidden: 256,
        intermediate: 640,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 4500,
        ..tiny
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    synthetic::write_random_model(&path, &config, 1, &mut |_, _| {}).unwrap();
    let base = Checkpoint::open(path).unwrap();
    let options = TrainOptions { compute: DType::BF16, dropout: 0.05, ..TrainOptions::default() };
    let adapter = Adapter::init(&base, &options.adapter_settings(), 1).unwrap();
    let mut train_step = TrainStep::new(&Device::cpu(), &options, &base, Some(&adapter)).unwrap();
    let tokens: Vec<u32> = (0..TOKENS).map(|i| 3 + i * 37 % 4000).collect();
    let targets = tokens.iter().map(|&token| token as i32).collect();
    let micro_batch = [PackedSequence::concat([&Document { tokens, targets }])];
    let mut faults: Vec<usize> = (0..12)
        .map(|_| {
            let before = page_faults();
            train_step.run(&micro_batch, 1e-3).unwrap();
            page_faults() - before
        })
        .collect();
    // A step moves 30 MiB of tensors: 7,000 pages. A thread that takes larger blocks than before needs some new ones, which
    // most steps do not meet.
    let later = &mut faults[2..];
    later.sort();
    assert!(later[later.len() / 2] < 32, "{faults:?}");
}
