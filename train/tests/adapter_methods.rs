//! Training runs of every adapter method: the loss falls, the result depends on the recipe alone, and the adapter is
//! read back with its method.

mod common;
mod method_list;
mod on_ranks;

use codelsi_engine::{Device, Rank, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_train::{TrainEvent, TrainOptions, metrics, train};
use on_ranks::on_ranks;
use std::path::Path;

/// Calls `check` for each method with a folder and options of its own.
fn for_each_method(mut check: impl FnMut(&Path, TrainOptions)) {
    for method in method_list::METHODS {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, epochs: 2, ..common::prepare(folder.path()) };
        check(folder.path(), options);
    }
}

/// The bytes of the trained adapter.
fn adapter_bytes(options: &TrainOptions) -> Vec<u8> {
    std::fs::read(options.out.join("adapter_model.safetensors")).unwrap()
}

/// The training loss of each step.
fn losses(options: &TrainOptions) -> Vec<f64> {
    metrics::read(&options.out.join("metrics.jsonl")).unwrap().into_iter().map(|m| m.loss).collect()
}

#[test]
fn each_method_learns_the_same_for_any_number_of_threads_and_is_read_back() {
    for_each_method(|folder, options| {
        let method = options.method;
        let mut results = Vec::new();
        for threads in [1, 3] {
            let options = TrainOptions { out: folder.join(threads.to_string()), ..options.clone() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let report = pool.install(|| train(&options, &Device::cpu(), &mut |_| ())).unwrap();
            let learned = report.validation_before.zip(report.validation_loss);
            assert!(learned.is_some_and(|(before, after)| after < 0.98 * before), "{method}: {report:?}");
            let config = Checkpoint::open(&options.model).unwrap().config().clone();
            let adapter = Adapter::load(&options.out, &config).unwrap();
            assert_eq!((adapter.config.method, adapter.parameters()), (method, report.trainable));
            results.push((losses(&options), adapter_bytes(&options)));
        }
        assert!(results[0] == results[1], "{method}");
    });
}

/// B and W_up are initially 0, so dropout changes the loss from the second step on.
#[test]
fn dropout_is_applied_in_each_method() {
    for_each_method(|folder, options| {
        let with = |name: &str, dropout| {
            let options =
                TrainOptions { out: folder.join(name), dropout, max_steps: Some(2), ..options.clone() };
            train(&options, &Device::cpu(), &mut |_| ()).unwrap();
            losses(&options)
        };
        let (some, none) = (with("some", 0.1), with("none", 0.0));
        assert!(some[0] == none[0] && some[1] != none[1], "{}: {some:?} {none:?}", options.method);
    });
}

/// Trains to the end and returns the bytes of the adapter; rank 1 aborts after step `abort_after`.
fn train_on_ranks(
    options: &TrainOptions,
    ranks: usize,
    layout: Layout,
    abort_after: usize,
) -> Result<Vec<u8>> {
    let run = |rank: Rank| {
        let comm = rank.comm.clone();
        train(options, RankLayout::new(rank, layout), &mut |event| match event {
            TrainEvent::Step(metric, _) if metric.step == abort_after && comm.rank() == 1 => {
                comm.abort("was killed")
            }
            _ => {}
        })
    };
    on_ranks(ranks, run).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(adapter_bytes(options))
}

#[test]
fn each_method_resumes_to_the_same_bytes_under_another_layout() {
    for_each_method(|folder, options| {
        let options = TrainOptions { save_every: 2, ..options };
        let uninterrupted = TrainOptions { out: folder.join("uninterrupted"), ..options.clone() };
        let expected = train_on_ranks(&uninterrupted, 1, Layout::Replicate, usize::MAX).unwrap();
        let killed = train_on_ranks(&options, 2, Layout::Replicate, 3).unwrap_err().to_string();
        assert!(killed.contains("rank 1: was killed"), "{killed}");
        let options = TrainOptions { resume: true, ..options };
        let resumed = train_on_ranks(&options, 2, Layout::Shard, usize::MAX).unwrap();
        assert!(resumed == expected && losses(&options) == losses(&uninterrupted), "{}", options.method);
    });
}

#[test]
fn a_run_of_one_method_does_not_go_on_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { max_steps: Some(2), ..common::prepare(folder.path()) };
    train(&options, &Device::cpu(), &mut |_| ()).unwrap();
    let other = TrainOptions { method: method_list::METHODS[0], resume: true, ..options };
    let message = train(&other, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("`method` was \"LoRA\" and is \"DoRA\" now"), "{message}");
    let second = TrainOptions { from: Some(other.out.clone()), out: folder.path().join("second"), ..other };
    let message = train(&second, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("holds LoRA, which does not go on as DoRA"), "{message}");
}
