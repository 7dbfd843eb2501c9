//! Distillation against forgetting: on replayed rows the loss is the divergence from the adapter that the run starts from.

mod common;
mod method_list;
mod on_ranks;

use approx::assert_abs_diff_eq;
use codelsi_engine::{DType, Device, Rank, Result};
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_testing::or_skip;
use codelsi_train::pack::{Document, DocumentLoss, PackedSequence};
use codelsi_train::train_step::{StepStats, TrainStep};
use codelsi_train::{TrainEvent, TrainOptions, metrics, train};
use on_ranks::on_ranks;
use serde_json::json;
use std::fs;
use std::path::Path;

/// A document of `tokens` tokens, of which all but the first few are labelled.
fn document(tokens: usize) -> Document {
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| 3 + i * 37 % 36).collect();
    let in_loss: Vec<bool> = (0..tokens.len()).map(|i| i > 3).collect();
    Document::new(tokens, &in_loss)
}

fn sequence(documents: &[(usize, DocumentLoss)]) -> PackedSequence {
    let mut all = PackedSequence::default();
    documents.iter().for_each(|&(tokens, loss)| all.push(&document(tokens), loss));
    all
}

use DocumentLoss::{CrossEntropy, Distillation};

/// An adapter without zeros.
fn adapter(base: &Checkpoint, options: &TrainOptions, seed: u64) -> Adapter {
    let mut adapter = Adapter::init(base, &options.adapter_settings(), seed).unwrap();
    for module in adapter.modules.values_mut() {
        let values = module.b.slice_mut::<f32>().unwrap().iter_mut().enumerate();
        values.for_each(|(i, b)| *b = 0.2 * ((i as f32 + seed as f32) * 0.7).sin());
    }
    adapter
}

/// Runs `steps` steps over a micro-batch; `seeds` are those of the adapter to train and of its teacher.
fn steps(
    device: &Device,
    options: &TrainOptions,
    seeds: [u64; 2],
    micro_batch: &PackedSequence,
    steps: usize,
) -> Vec<StepStats> {
    let base = Checkpoint::open(&options.model).unwrap();
    let [student, teacher] = seeds.map(|seed| adapter(&base, options, seed));
    let train_step = TrainStep::new(device, options, &base, Some(&student)).unwrap();
    let mut train_step = train_step.with_teacher(Some(&teacher)).unwrap();
    (0..steps).map(|_| train_step.run(std::slice::from_ref(micro_batch), 0.02).unwrap()).collect()
}

/// Options of a run without dropout, which only the student has.
fn exact_options(folder: &Path) -> TrainOptions {
    TrainOptions { dropout: 0.0, distill: 1.0, ..common::prepare(folder) }
}

#[test]
fn a_student_that_starts_as_its_teacher_has_neither_loss_nor_gradient_on_replayed_rows() {
    let folder = tempfile::tempdir().unwrap();
    let devices = [Some(Device::cpu()), or_skip(Device::emulated("sm_80"))];
    for device in devices.into_iter().flatten() {
        for method in method_list::METHODS.into_iter().chain([Method::LORA]) {
            for compute in [DType::F32, DType::BF16] {
                let options = TrainOptions { method, compute, ..exact_options(folder.path()) };
                let replayed = sequence(&[(20, Distillation), (9, Distillation)]);
                let stats = steps(&device, &options, [1, 1], &replayed, 1);
                let what = format!("{method}, {compute:?} on {}", device.name());
                assert_eq!(stats, [StepStats { loss: 0.0, grad_norm: 0.0 }], "{what}");
            }
        }
    }
}

#[test]
fn a_student_comes_back_to_its_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let options = exact_options(folder.path());
    let stats = steps(&Device::cpu(), &options, [1, 2], &sequence(&[(40, Distillation)]), 30);
    assert!(stats[0].loss > 0.01 && stats[0].grad_norm > 0.01, "{:?}", stats[0]);
    assert!(stats[29].loss < 0.2 * stats[0].loss, "{stats:?}");
}

#[test]
fn both_losses_are_summed_over_one_number_of_labels() {
    let folder = tempfile::tempdir().unwrap();
    let options = exact_options(folder.path());
    let loss = |distill: f64, documents: &[(usize, DocumentLoss)]| {
        let options = TrainOptions { distill, ..options.clone() };
        steps(&Device::cpu(), &options, [1, 2], &sequence(documents), 1)[0].loss
    };
    let hard = loss(1.0, &[(20, CrossEntropy)]);
    let soft = loss(1.0, &[(12, Distillation)]);
    // The first four tokens of a document are its prompt.
    let (hard_labels, soft_labels) = (16.0, 8.0);
    for weight in [0.25, 1.0, 3.0] {
        let mixed = loss(weight, &[(20, CrossEntropy), (12, Distillation)]);
        let expected = (hard_labels * hard + weight * soft_labels * soft) / (hard_labels + soft_labels);
        assert_abs_diff_eq!(mixed, expected, epsilon = 1e-5);
    }
    assert!((hard - soft).abs() > 0.1, "{hard} {soft}");
}

/// Trains a first stage and returns the options of a second one that replays its rows and distills.
fn second_stage(folder: &Path) -> TrainOptions {
    let first = TrainOptions { epochs: 2, ..common::prepare(folder) };
    train(&first, &Device::cpu(), &mut |_| ()).unwrap();
    let rows: Vec<_> = (0..12)
        .map(|i| json!({"instruction": format!("spell {i}"), "output": "xyz".repeat(1 + i % 3)}))
        .collect();
    codelsi_model::jsonl::write(folder.join("private.jsonl"), &rows).unwrap();
    TrainOptions {
        data: vec![folder.join("private.jsonl")],
        replay: first.data.first().cloned(),
        replay_rows: 9,
        from: Some(first.out.clone()),
        out: folder.join("second"),
        distill: 0.5,
        epochs: 2,
        batch: 5,
        micro_batch: 1,
        save_every: 2,
        ..first
    }
}

/// The losses and gradient norms of a run, and the bytes of its adapter.
fn result(options: &TrainOptions) -> (Vec<[u64; 2]>, Vec<u8>) {
    let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
    let bits = metrics.iter().map(|m| [m.loss.to_bits(), m.grad_norm.to_bits()]).collect();
    (bits, fs::read(options.out.join("adapter_model.safetensors")).unwrap())
}

#[test]
fn threads_ranks_and_layouts_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    // Without packing, a micro-batch has one loss, and ranks have micro-batches of different ones at the same time.
    for packing in [true, false] {
        let options = TrainOptions { packing, ..second_stage(&folder.path().join(packing.to_string())) };
        let run = |name: &str, train: &dyn Fn(&TrainOptions)| {
            let options = TrainOptions { out: options.out.with_extension(name), ..options.clone() };
            train(&options);
            result(&options)
        };
        let alone = run("alone", &|options| {
            train(options, &Device::cpu(), &mut |_| ()).unwrap();
        });
        let plain = run("plain", &|options| {
            train(&TrainOptions { distill: 0.0, ..options.clone() }, &Device::cpu(), &mut |_| ()).unwrap();
        });
        assert!(plain.0 != alone.0, "distillation changes the loss");
        let threads = run("threads", &|options| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            pool.install(|| train(options, &Device::cpu(), &mut |_| ())).unwrap();
        });
        assert!(threads == alone, "threads");
        for (layout, world) in
            [(Layout::Replicate, 2), (Layout::Replicate, 3), (Layout::Shard, 2), (Layout::Shard, 3)]
        {
            let ranks = run(&format!("{layout:?}{world}"), &|options| {
                let ranks = |rank: Rank| train(options, RankLayout::new(rank, layout), &mut |_| ());
                on_ranks(world, ranks).into_iter().collect::<Result<Vec<_>>>().unwrap();
            });
            assert!(ranks == alone, "{layout:?} on {world} ranks, packing: {packing}");
        }
    }
}

#[test]
fn a_run_resumes_to_the_same_bits_with_the_same_teacher_only() {
    let folder = tempfile::tempdir().unwrap();
    let options = second_stage(folder.path());
    let resumed = TrainOptions { out: folder.path().join("resumed"), resume: true, ..options.clone() };
    // What a run that ends after its second step leaves.
    let copy = |checkpoint: &Path| {
        let to = resumed.out.join("checkpoints").join(checkpoint.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(checkpoint).unwrap().map(|file| file.unwrap().path()) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
        fs::copy(options.out.join("metrics.jsonl"), resumed.out.join("metrics.jsonl")).unwrap();
    };
    let mut summary = String::new();
    train(&options, &Device::cpu(), &mut |event| match event {
        TrainEvent::Start(start) => summary = start.to_string(),
        TrainEvent::CheckpointSaved(path) if path.ends_with("step-00000002") => copy(path),
        _ => {}
    })
    .unwrap();
    assert!(
        summary.contains("\nloss: cross-entropy on rows of --data; on replayed rows 0.5 times "),
        "{summary}"
    );

    let refused =
        |changed: TrainOptions| train(&changed, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    let message = refused(TrainOptions { distill: 0.0, ..resumed.clone() });
    assert!(message.contains("`distill` was 0.5 and is null now"), "{message}");
    let other = folder.path().join("other");
    let first = TrainOptions { seed: 7, max_steps: Some(1), ..common::prepare(&other) };
    train(&first, &Device::cpu(), &mut |_| ()).unwrap();
    let message = refused(TrainOptions { from: Some(first.out), ..resumed.clone() });
    assert!(message.contains("`teacher_sha256` was ") && !message.contains('\n'), "{message}");

    let mut steps = Vec::new();
    train(&resumed, &Device::cpu(), &mut |event| {
        if let TrainEvent::Step(metric, _) = event {
            steps.push(metric.step);
        }
    })
    .unwrap();
    assert_eq!(steps[0], 3);
    assert!(result(&resumed) == result(&options));
}

#[test]
fn what_cannot_distill_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let options = second_stage(folder.path());
    let train = |options: &TrainOptions, layout| {
        let ranks = on_ranks(2, |rank| train(options, RankLayout::new(rank, layout), &mut |_| ()));
        ranks.into_iter().next().unwrap().unwrap_err().to_string()
    };
    let from_nothing = TrainOptions { from: None, ..options.clone() };
    let without_rows = TrainOptions { replay: None, replay_rows: 0, ..options.clone() };
    let negative = TrainOptions { distill: -1.0, ..options.clone() };
    for (options, layout, part) in [
        (&from_nothing, Layout::Replicate, "distillation needs rows to replay and an adapter to start from"),
        (&without_rows, Layout::Replicate, "give --replay and --from, or leave out --distill"),
        (&negative, Layout::Replicate, "--distill is -1.0, not a number, at least 0"),
        (&options, Layout::Tensor, "--layout tensor has no distillation"),
    ] {
        let message = train(options, layout);
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
        assert!(!options.out.join("recipe.json").exists(), "nothing was trained");
    }
}
