//! Training the routers of a mixture whose experts are adapters that were trained before.

mod common;
mod on_ranks;

use codelsi_engine::Device;
use codelsi_model::adapter::{Adapter, AdapterTensors, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_train::{TrainEvent, TrainOptions, train};
use on_ranks::on_ranks;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Trains two LoRA adapters, and returns the options of a run that trains the routers between them.
fn prepare(folder: &Path) -> TrainOptions {
    let options = common::prepare(folder);
    let expert = |seed: u64| -> PathBuf {
        let out = folder.join(format!("expert-{seed}"));
        let options = TrainOptions { out: out.clone(), seed, ..options.clone() };
        train(&options, &Device::cpu(), &mut |_| ()).unwrap();
        out
    };
    let experts: Vec<PathBuf> = [1, 2].map(expert).into();
    let (method, alpha) = (Method::Mixture { experts: 2 }, options.rank as f32);
    TrainOptions { experts, method, alpha, ..options }
}

fn adapter(options: &TrainOptions, folder: &Path) -> Adapter {
    Adapter::load(folder, Checkpoint::open(&options.model).unwrap().config()).unwrap()
}

fn bytes(options: &TrainOptions) -> Vec<u8> {
    fs::read(options.out.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn routers_learn_and_the_experts_stay() {
    let folder = tempfile::tempdir().unwrap();
    let options = prepare(folder.path());
    let report = train(&options, &Device::cpu(), &mut |_| ()).unwrap();
    let loss = report.validation_before.zip(report.validation_loss);
    assert!(loss.is_some_and(|(before, after)| after < before), "{report:?}");
    let load = |folder: &PathBuf| adapter(&options, folder);
    let initial = Adapter::mixture_of(&options.experts.iter().map(load).collect::<Vec<_>>()).unwrap();
    let trained = adapter(&options, &options.out);
    let router = |module: &AdapterTensors| module.extra.as_ref().unwrap().to_vec::<f32>().unwrap();
    let mut parameters = 0;
    for (path, module) in &trained.modules {
        let before = &initial.modules[path];
        for (t, before) in module.tensors().zip(before.tensors()).take(2) {
            assert!(t.bytes().unwrap() == before.bytes().unwrap(), "an expert of {path} changed");
        }
        assert!(
            router(before).iter().all(|&x| x == 0.0) && router(module).iter().any(|&x| x != 0.0),
            "{path}"
        );
        parameters += router(module).len();
    }
    assert_eq!(report.trainable, parameters);
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes_under_another_layout() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { resume: true, save_every: 2, ..prepare(folder.path()) };
    let whole = TrainOptions { out: folder.path().join("whole"), ..options.clone() };
    train(&whole, &Device::cpu(), &mut |_| ()).unwrap();
    let killed = AssertUnwindSafe(|| {
        train(&options, &Device::cpu(), &mut |event| match event {
            TrainEvent::Step(metric, _) if metric.step == 5 => panic!("killed"),
            _ => {}
        })
    });
    assert!(catch_unwind(killed).is_err());
    for report in on_ranks(2, |rank| train(&options, RankLayout::new(rank, Layout::Shard), &mut |_| ())) {
        report.unwrap();
    }
    assert!(bytes(&options) == bytes(&whole));
}

#[test]
fn options_that_contradict_frozen_experts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = common::prepare(folder.path());
    let experts = vec![folder.path().join("one"), folder.path().join("two")];
    let refused =
        |options: TrainOptions| train(&options, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    let lora = refused(TrainOptions { experts: experts.clone(), ..options.clone() });
    assert!(lora.contains("2 frozen experts are a mixture of as many, not LoRA"), "{lora}");
    let method = Method::Mixture { experts: 2 };
    let from = Some(folder.path().join("one"));
    let both = refused(TrainOptions { experts, method, from, ..options });
    assert!(both.contains("leave out --full and --from"), "{both}");
}
