//! Tensor-parallel training: it equals the run of one rank up to rounding, and a lost all-reduce is detected.

mod common;
mod on_ranks;

use codelsi_engine::comm::HostComm;
use codelsi_engine::{Comm, DType, Device, Label, Rank, ReduceOp, Result, Tensor, Threads};
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::{Checkpoint, TensorFile, TensorSlice};
use codelsi_model::config::LinearName;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_testing::or_skip;
use codelsi_train::metrics::{self, StepMetrics};
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::Planner;
use codelsi_train::train_step::TrainStep;
use codelsi_train::{TrainEvent, TrainOptions, train};
use on_ranks::{on_ranks, on_ranks_over};
use std::path::Path;
use std::time::Duration;

/// The metrics of a run, and the values of the trained adapter or model.
struct RunResult {
    metrics: Vec<StepMetrics>,
    values: Vec<f32>,
}

fn read_result(options: &TrainOptions) -> RunResult {
    let name = if options.full { "model.safetensors" } else { "adapter_model.safetensors" };
    let file = TensorFile::open(options.out.join(name)).unwrap();
    let device = Device::cpu();
    let values = |name: &String| {
        let t = file.copy(&device, Label::Scratch, name, &TensorSlice::Full, DType::F32);
        t.unwrap().to_vec::<f32>().unwrap()
    };
    let values = file.entries().keys().flat_map(values).collect();
    RunResult { metrics: metrics::read(&options.out.join("metrics.jsonl")).unwrap(), values }
}

fn test_options(folder: &Path, full: bool) -> TrainOptions {
    TrainOptions { full, clip: Some(0.5), save_every: 2, ..common::prepare(folder) }
}

fn run(world: usize, layout: Layout, options: &TrainOptions) -> RunResult {
    let reports = on_ranks(world, |rank| train(options, RankLayout::new(rank, layout), &mut |_| ()));
    reports.into_iter().collect::<Result<Vec<_>>>().unwrap();
    read_result(options)
}

/// The largest relative difference of losses and gradient norms.
fn max_relative_difference(a: &[StepMetrics], b: &[StepMetrics]) -> f64 {
    assert_eq!(a.len(), b.len());
    let share = |a: f64, b: f64| (a / b - 1.0).abs();
    let pairs = a.iter().zip(b);
    let steps = pairs.map(|(a, b)| share(a.loss, b.loss).max(share(a.grad_norm, b.grad_norm)));
    steps.fold(0.0, f64::max)
}

fn assert_close(a: &RunResult, b: &RunResult) {
    let steps = max_relative_difference(&a.metrics, &b.metrics);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.values.iter().zip(&b.values).map(|(a, b)| f64::from(a - b)));
    let values = difference / norm(&mut b.values.iter().map(|&b| f64::from(b)));
    println!("relative difference: losses and norms {steps:.1e}, trained values {values:.1e}");
    assert!(steps < 1e-5 && values < 1e-5);
}

#[test]
fn a_run_equals_that_of_one_rank_up_to_rounding() {
    for (full, method) in [(false, Method::LORA), (true, Method::LORA), (false, Method::Bottleneck)] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, ..test_options(folder.path(), full) };
        let alone = run(1, Layout::Tensor, &options);
        let mut bits = None;
        for checkpointing in [ActivationCheckpointing::NONE, ActivationCheckpointing::ALL] {
            let out = options.out.with_extension(format!("{checkpointing:?}"));
            let many = run(2, Layout::Tensor, &TrainOptions { out, checkpointing, ..options.clone() });
            assert_close(&many, &alone);
            assert!(bits.replace(many.values.clone()).is_none_or(|before| before == many.values));
        }
    }
}

/// Methods without a tensor-parallel form are refused by name before training starts.
#[test]
fn methods_without_tensor_parallelism_are_refused() {
    for method in [Method::LowRank { rslora: false, dora: true }, Method::Mixture { experts: 2 }] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, ..test_options(folder.path(), false) };
        for ended in on_ranks(2, |rank| train(&options, RankLayout::new(rank, Layout::Tensor), &mut |_| ())) {
            let message = ended.unwrap_err().to_string();
            let expected = format!("--layout tensor does not know {method}; use --layout replicate or shard");
            assert!(message.contains(&expected) && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn a_checkpoint_is_unsharded_and_resumes_under_another_layout() {
    for (before, after) in
        [((2, Layout::Tensor), (1, Layout::Replicate)), ((3, Layout::Replicate), (2, Layout::Tensor))]
    {
        let folder = tempfile::tempdir().unwrap();
        let options = test_options(folder.path(), false);
        let alone =
            run(1, Layout::Replicate, &TrainOptions { out: folder.path().join("alone"), ..options.clone() });
        // The run ends after step 3; the last checkpoint is that of step 2.
        let ended = on_ranks(before.0, |rank| {
            let (comm, odd) = (rank.comm.clone(), rank.comm.rank() == 1);
            train(&options, RankLayout::new(rank, before.1), &mut |event| match event {
                TrainEvent::Step(metric, _) if odd && metric.step == 3 => comm.abort("was killed"),
                _ => {}
            })
        });
        assert!(ended.iter().all(Result::is_err));
        let resumed = run(after.0, after.1, &TrainOptions { resume: true, ..options });
        assert_close(&resumed, &alone);
    }
}

/// A communicator that skips the all-reduces of tensors of one shape.
struct LossyComm {
    host: HostComm,
    lost: [usize; 2],
}

impl Comm for LossyComm {
    fn rank(&self) -> usize {
        self.host.rank()
    }
    fn world(&self) -> usize {
        self.host.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: ReduceOp) -> Result<()> {
        let (rows, columns) = x.shape().as_matrix();
        if how == ReduceOp::Sum && [rows, columns] == self.lost {
            Ok(())
        } else {
            self.host.all_reduce(x, how)
        }
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.host.all_gather(x, out)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.host.reduce_scatter(x, out)
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.host.broadcast(parts)
    }
    fn barrier(&self) -> Result<()> {
        self.host.barrier()
    }
    fn secondary(&self) -> &dyn Comm {
        self.host.secondary()
    }
    fn abort(&self, why: &str) {
        self.host.abort(why);
    }
    fn seconds(&self) -> f64 {
        self.host.seconds()
    }
}

#[test]
fn a_lost_all_reduce_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), false);
    let alone = run(1, Layout::Tensor, &options);
    let lossy = |name: &str, lost: [usize; 2]| {
        let options = TrainOptions { out: folder.path().join(name), save_every: 0, ..options.clone() };
        let wrap = |host| LossyComm { host, lost };
        let f = |rank| train(&options, RankLayout::new(rank, Layout::Tensor), &mut |_| ()).map(drop);
        let ended = on_ranks_over(Threads::group_within(2, Duration::from_secs(20)), wrap, Device::cpu, f);
        let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
        (max_relative_difference(&metrics, &alone.metrics), ended.into_iter().collect::<Result<()>>())
    };
    let (steps, ended) = lossy("none", [9999, 1]);
    assert!(steps < 1e-5 && ended.is_ok(), "{steps:e} {ended:?}");
    // The adapter has rank 4 and the model hidden size 16; the norm is a scalar.
    for (what, lost) in [("dA", [4, 16]), ("dB", [16, 4]), ("norm", [1, 1])] {
        let (steps, ended) = lossy(what, lost);
        println!("without the all-reduce of {what}, losses and norms differ by {steps:.1e}");
        assert!(steps > 1e-3, "the lost all-reduce of {what} is not detected: {steps:e}");
        // Replicated parameters have diverged, so nothing is written.
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("another set of parameters"), "{what}: {error}");
    }
}

#[test]
fn the_plan_of_a_rank_equals_the_accounts_of_its_software_gpu() {
    let Some(_) = or_skip(Device::emulated("sm_80")) else { return };
    for full in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions {
            checkpointing: ActivationCheckpointing::Layers(1),
            ..test_options(folder.path(), full)
        };
        let base = Checkpoint::open(&options.model).unwrap();
        let adapter = Adapter::init_lora(base.config(), 4, 8.0, 0.1, &LinearName::ALL, 1).unwrap();
        let adapter = (!full).then_some(&adapter);
        let tokens: Vec<u32> = (3..40).collect();
        let targets = tokens[1..].iter().map(|&t| t as i32).chain([-100]).collect();
        let document = Document { tokens, targets };
        let micro_batches = vec![PackedSequence::concat([&document]); 2];
        let books = |rank: Rank| {
            let (device, number) = (rank.device.clone(), rank.comm.rank());
            let planner = Planner {
                device: &device,
                options: &options,
                base: &base,
                adapter,
                rank: number,
                world: 2,
                layout: Layout::Tensor,
                budget: None,
            };
            let planned = planner.plan_step(&micro_batches)?.usage;
            let split = RankLayout::new(rank, Layout::Tensor);
            TrainStep::new(split, &options, &base, adapter)?.run(&micro_batches, 1e-3)?;
            let run = device.ledger().usage();
            Ok(((planned.peak, planned.at_peak), (run.peak, run.at_peak)))
        };
        let device = || Device::emulated("sm_80").unwrap();
        let group = Threads::group_within(2, Duration::from_secs(60));
        for (number, books) in on_ranks_over(group, |host| host, device, books).into_iter().enumerate() {
            let (planned, run) = books.unwrap();
            assert_eq!(planned, run, "rank {number}, full: {full}");
        }
    }
}
