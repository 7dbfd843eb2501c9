//! Every method of fine-tuning as a run: it learns, its bits are a matter of the recipe alone, and what it leaves is read
//! back as what it is.

mod common;
mod every;
mod on_ranks;

use codelsi_engine::{Device, Rank, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Layout, Split};
use codelsi_train::{Event, TrainOptions, metrics, train};
use on_ranks::on_ranks;
use std::path::Path;

/// A run of each method with its own folder.
fn each(mut see: impl FnMut(&Path, TrainOptions)) {
    for method in every::METHODS {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, epochs: 2, ..common::prepare(folder.path()) };
        see(folder.path(), options);
    }
}

/// The bytes of what was trained.
fn left(options: &TrainOptions) -> Vec<u8> {
    std::fs::read(options.out.join("adapter_model.safetensors")).unwrap()
}

/// The losses before and after each step, to the bit.
fn losses(options: &TrainOptions) -> Vec<f64> {
    metrics::read(&options.out.join("metrics.jsonl")).unwrap().into_iter().map(|m| m.loss).collect()
}

#[test]
fn each_learns_the_same_for_any_number_of_threads_and_is_read_back() {
    each(|folder, options| {
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
            assert_eq!((adapter.settings.method, adapter.parameters()), (method, report.trainable));
            results.push((losses(&options), left(&options)));
        }
        assert!(results[0] == results[1], "{method}");
    });
}

/// B and W_up are 0 at first: dropout shows in the second step's loss.
#[test]
fn dropout_reaches_the_input_of_each() {
    each(|folder, options| {
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

/// Trains to the end; rank 1 breaks off after step `dies`.
fn trained(options: &TrainOptions, ranks: usize, layout: Layout, dies: usize) -> Result<Vec<u8>> {
    let run = |rank: Rank| {
        let comm = rank.comm.clone();
        train(options, Split::new(rank, layout), &mut |event| match event {
            Event::Step(metric, _) if metric.step == dies && comm.rank() == 1 => comm.abort("was killed"),
            _ => {}
        })
    };
    on_ranks(ranks, run).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(left(options))
}

#[test]
fn each_resumes_to_the_same_bytes_under_another_layout() {
    each(|folder, options| {
        let options = TrainOptions { save_every: 2, ..options };
        let whole = TrainOptions { out: folder.join("whole"), ..options.clone() };
        let expected = trained(&whole, 1, Layout::Replicate, usize::MAX).unwrap();
        let killed = trained(&options, 2, Layout::Replicate, 3).unwrap_err().to_string();
        assert!(killed.contains("rank 1: was killed"), "{killed}");
        let options = TrainOptions { resume: true, ..options };
        let resumed = trained(&options, 2, Layout::Shard, usize::MAX).unwrap();
        assert!(resumed == expected && losses(&options) == losses(&whole), "{}", options.method);
    });
}

#[test]
fn a_run_of_one_method_does_not_go_on_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { max_steps: Some(2), ..common::prepare(folder.path()) };
    train(&options, &Device::cpu(), &mut |_| ()).unwrap();
    let other = TrainOptions { method: every::METHODS[0], resume: true, ..options };
    let message = train(&other, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("`method` was \"LoRA\" and is \"DoRA\" now"), "{message}");
    let second = TrainOptions { from: Some(other.out.clone()), out: folder.path().join("second"), ..other };
    let message = train(&second, &Device::cpu(), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("holds LoRA, which does not go on as DoRA"), "{message}");
}
