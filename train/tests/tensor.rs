//! Training with a model that is cut over ranks: the run of one rank but for rounding, and a dropped sum is seen.

mod common;
mod on_ranks;

use codelsi_engine::comm::Host;
use codelsi_engine::{Comm, DType, Device, Label, Rank, Reduce, Result, Tensor, Threads};
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::{Checkpoint, Part, TensorFile};
use codelsi_model::config::Linear;
use codelsi_model::parallel::{Layout, Split};
use codelsi_train::learner::Learner;
use codelsi_train::metrics::{self, Metric};
use codelsi_train::options::Checkpointing;
use codelsi_train::pack::{Document, Sequence};
use codelsi_train::plan::Planner;
use codelsi_train::{Event, TrainOptions, train};
use on_ranks::{on_ranks, on_ranks_over};
use std::path::Path;
use std::time::Duration;

/// What a run left: its metrics, and the values of its adapter or model.
struct Left {
    metrics: Vec<Metric>,
    values: Vec<f32>,
}

fn left(options: &TrainOptions) -> Left {
    let name = if options.full { "model.safetensors" } else { "adapter_model.safetensors" };
    let file = TensorFile::open(options.out.join(name)).unwrap();
    let device = Device::cpu();
    let values = |name: &String| {
        let t = file.copy(&device, Label::Scratch, name, &Part::Whole, DType::F32);
        t.unwrap().to_vec::<f32>().unwrap()
    };
    let values = file.entries().keys().flat_map(values).collect();
    Left { metrics: metrics::read(&options.out.join("metrics.jsonl")).unwrap(), values }
}

fn options(folder: &Path, full: bool) -> TrainOptions {
    TrainOptions { full, clip: Some(0.5), save_every: 2, ..common::prepare(folder) }
}

fn run(world: usize, layout: Layout, options: &TrainOptions) -> Left {
    let reports = on_ranks(world, |rank| train(options, Split::new(rank, layout), &mut |_| ()));
    reports.into_iter().collect::<Result<Vec<_>>>().unwrap();
    left(options)
}

/// The largest difference of losses and norms, as a share.
fn steps_apart(a: &[Metric], b: &[Metric]) -> f64 {
    assert_eq!(a.len(), b.len());
    let share = |a: f64, b: f64| (a / b - 1.0).abs();
    let pairs = a.iter().zip(b);
    let steps = pairs.map(|(a, b)| share(a.loss, b.loss).max(share(a.grad_norm, b.grad_norm)));
    steps.fold(0.0, f64::max)
}

fn near(a: &Left, b: &Left) {
    let steps = steps_apart(&a.metrics, &b.metrics);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.values.iter().zip(&b.values).map(|(a, b)| f64::from(a - b)));
    let values = difference / norm(&mut b.values.iter().map(|&b| f64::from(b)));
    println!("losses and norms differ by {steps:.1e}, what was trained by {values:.1e}");
    assert!(steps < 1e-5 && values < 1e-5);
}

#[test]
fn a_run_is_that_of_one_rank_but_for_rounding() {
    for (full, method) in [(false, Method::LORA), (true, Method::LORA), (false, Method::Bottleneck)] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, ..options(folder.path(), full) };
        let alone = run(1, Layout::Tensor, &options);
        let mut bits = None;
        for checkpointing in [Checkpointing::NONE, Checkpointing::ALL] {
            let out = options.out.with_extension(format!("{checkpointing:?}"));
            let many = run(2, Layout::Tensor, &TrainOptions { out, checkpointing, ..options.clone() });
            near(&many, &alone);
            assert!(bits.replace(many.values.clone()).is_none_or(|before| before == many.values));
        }
    }
}

/// What their ranks cannot share is refused by name, before anything is trained.
#[test]
fn methods_that_are_not_cut_are_refused() {
    for method in [Method::LowRank { rslora: false, dora: true }, Method::Mixture { experts: 2 }] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { method, ..options(folder.path(), false) };
        for ended in on_ranks(2, |rank| train(&options, Split::new(rank, Layout::Tensor), &mut |_| ())) {
            let message = ended.unwrap_err().to_string();
            let expected = format!("--layout tensor does not know {method}; use --layout replicate or shard");
            assert!(message.contains(&expected) && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn a_checkpoint_is_whole_and_another_layout_goes_on_from_it() {
    for (before, after) in
        [((2, Layout::Tensor), (1, Layout::Replicate)), ((3, Layout::Replicate), (2, Layout::Tensor))]
    {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), false);
        let alone =
            run(1, Layout::Replicate, &TrainOptions { out: folder.path().join("alone"), ..options.clone() });
        // Ends in the middle of step 4, after the checkpoint of step 2.
        let ended = on_ranks(before.0, |rank| {
            let (comm, odd) = (rank.comm.clone(), rank.comm.rank() == 1);
            train(&options, Split::new(rank, before.1), &mut |event| match event {
                Event::Step(metric, _) if odd && metric.step == 3 => comm.abort("it was enough"),
                _ => {}
            })
        });
        assert!(ended.iter().all(Result::is_err));
        let resumed = run(after.0, after.1, &TrainOptions { resume: true, ..options });
        near(&resumed, &alone);
    }
}

/// A rank whose sums of tensors of one shape are not made.
struct Lossy {
    host: Host,
    lost: [usize; 2],
}

impl Comm for Lossy {
    fn rank(&self) -> usize {
        self.host.rank()
    }
    fn world(&self) -> usize {
        self.host.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        let (rows, columns) = x.shape().as_matrix();
        if how == Reduce::Sum && [rows, columns] == self.lost { Ok(()) } else { self.host.all_reduce(x, how) }
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
    fn beside(&self) -> &dyn Comm {
        self.host.beside()
    }
    fn abort(&self, why: &str) {
        self.host.abort(why);
    }
    fn seconds(&self) -> f64 {
        self.host.seconds()
    }
}

#[test]
fn a_dropped_sum_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), false);
    let alone = run(1, Layout::Tensor, &options);
    let lossy = |name: &str, lost: [usize; 2]| {
        let options = TrainOptions { out: folder.path().join(name), save_every: 0, ..options.clone() };
        let wrap = |host| Lossy { host, lost };
        let f = |rank| train(&options, Split::new(rank, Layout::Tensor), &mut |_| ()).map(drop);
        let ended = on_ranks_over(Threads::group_within(2, Duration::from_secs(20)), wrap, Device::cpu, f);
        let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
        (steps_apart(&metrics, &alone.metrics), ended.into_iter().collect::<Result<()>>())
    };
    let (steps, ended) = lossy("none", [9999, 1]);
    assert!(steps < 1e-5 && ended.is_ok(), "{steps:e} {ended:?}");
    // Rank 4, hidden 16; the norm is a scalar.
    for (what, lost) in [("dA", [4, 16]), ("dB", [16, 4]), ("norm", [1, 1])] {
        let (steps, ended) = lossy(what, lost);
        println!("without the sum of {what} losses and norms differ by {steps:.1e}");
        assert!(steps > 1e-3, "nobody missed the sum of {what}: {steps:e}");
        // What is copied has become another thing on each rank, and nothing is written.
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("another set of parameters"), "{what}: {error}");
    }
}

#[test]
fn the_plan_of_a_rank_is_its_software_gpu_s_books() {
    if let Err(e) = Device::emulated("sm_80") {
        assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
        return println!("skipped: {e}");
    }
    for full in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let options =
            TrainOptions { checkpointing: Checkpointing::Layers(1), ..options(folder.path(), full) };
        let base = Checkpoint::open(&options.model).unwrap();
        let adapter = Adapter::fresh(base.config(), 4, 8.0, 0.1, &Linear::ALL, 1).unwrap();
        let adapter = (!full).then_some(&adapter);
        let tokens: Vec<u32> = (3..40).collect();
        let targets = tokens[1..].iter().map(|&t| t as i32).chain([-100]).collect();
        let document = Document { tokens, targets };
        let micro_batches = vec![Sequence::of([&document]); 2];
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
            let planned = planner.step(&micro_batches)?.usage;
            let split = Split::new(rank, Layout::Tensor);
            Learner::new(split, &options, &base, adapter)?.step(&micro_batches, 1e-3)?;
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
