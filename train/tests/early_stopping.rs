//! Early stopping of a tiny model: where a run ends, what it leaves, and that a kill changes nothing.

mod common;

use codelsi_engine::Device;
use codelsi_train::early_stopping::best_folder;
use codelsi_train::metrics;
use codelsi_train::{TrainEvent, TrainOptions, TrainReport, train};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const PATIENCE: usize = 3;
const VALIDATE_EVERY: usize = 2;

/// Options under which the few rows are soon learned by heart.
fn options(folder: &Path) -> TrainOptions {
    TrainOptions {
        epochs: 60,
        validate_every: VALIDATE_EVERY,
        patience: Some(PATIENCE),
        save_every: 5,
        resume: true,
        ..common::prepare(folder)
    }
}

fn run(options: &TrainOptions) -> TrainReport {
    train(options, &Device::cpu(), &mut |_| ()).unwrap()
}

fn adapter(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn a_run_ends_when_the_validation_loss_has_not_fallen_and_leaves_its_best_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let mut planned = 0;
    let report = train(&options, &Device::cpu(), &mut |event| {
        if let TrainEvent::Step(_, steps) = event {
            planned = steps;
        }
    })
    .unwrap();
    assert!(report.steps < planned, "{} of {planned} steps", report.steps);
    let losses: Vec<(usize, f64)> = metrics::read(&options.out.join("metrics.jsonl"))
        .unwrap()
        .into_iter()
        .filter_map(|metric| Some((metric.step, metric.validation_loss?)))
        .collect();
    let (best, lowest) = *losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(report.steps, best + PATIENCE * VALIDATE_EVERY, "{losses:?}");
    assert_eq!(report.validation_loss, Some(lowest));
    assert_eq!(adapter(&options.out), adapter(&best_folder(&options.out)));
    // A finished run stays finished.
    assert_eq!(run(&options).steps, report.steps);
}

#[test]
fn a_run_that_broke_off_stops_at_the_same_step_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let whole = options(folder.path());
    let report = run(&whole);
    for broken_at in [3, report.steps - 1] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        let broken = catch_unwind(AssertUnwindSafe(|| {
            train(&options, &Device::cpu(), &mut |event| {
                if let TrainEvent::Step(metric, _) = event {
                    assert!(metric.step < broken_at, "killed");
                }
            })
        }));
        assert!(broken.is_err());
        assert_eq!(run(&options).steps, report.steps, "broken off at step {broken_at}");
        assert_eq!(adapter(&options.out), adapter(&whole.out), "broken off at step {broken_at}");
    }
}

#[test]
fn patience_without_validations_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [
        TrainOptions { validate_every: 0, ..options(folder.path()) },
        TrainOptions { validation: 0, ..options(folder.path()) },
    ] {
        let e = train(&wrong, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
        assert!(e.contains("early stopping needs validation rows") && !e.contains('\n'), "{e}");
    }
}
