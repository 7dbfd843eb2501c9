//! Data-parallel training: any number of ranks gives the bits of one rank, and errors in the reduction are detected.

mod common;
mod on_ranks;

use approx::assert_abs_diff_eq;
use codelsi_engine::comm::HostComm;
use codelsi_engine::{Comm, Device, Error, Rank, ReduceOp, Result, Tensor, Threads};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::LinearName;
use codelsi_model::parallel::Layout;
use codelsi_testing::or_skip;
use codelsi_train::metrics;
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::PackedSequence;
use codelsi_train::plan::Planner;
use codelsi_train::train_step::{StepStats, TrainStep};
use codelsi_train::{TrainOptions, TrainReport, train};
use on_ranks::{on_ranks, on_ranks_over};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Options for five micro-batches per step, of one sequence each, and fewer in the last step of an epoch.
fn test_options(folder: &Path, full: bool) -> TrainOptions {
    let options = common::prepare(folder);
    TrainOptions { full, batch: 5, micro_batch: 1, epochs: 2, save_every: 2, validate_every: 2, ..options }
}

/// The metrics of a run, and the bytes of the trained adapter or model.
fn result(options: &TrainOptions) -> (Vec<[String; 4]>, Vec<u8>) {
    let metrics = metrics::read(&options.out.join("metrics.jsonl")).unwrap();
    let bits = |x: f64| format!("{x:e}");
    let rows = metrics
        .iter()
        .map(|m| [bits(m.loss), bits(m.lr), bits(m.grad_norm), format!("{:?}", m.validation_loss)])
        .collect();
    let name = if options.full { "model.safetensors" } else { "adapter_model.safetensors" };
    (rows, std::fs::read(options.out.join(name)).unwrap())
}

fn run(world: usize, full: bool) -> (Vec<[String; 4]>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), full);
    let reports: Vec<TrainReport> =
        on_ranks(world, |rank| train(&options, rank, &mut |_| ())).into_iter().map(Result::unwrap).collect();
    let bits = |r: &TrainReport| (r.steps, r.tokens, r.first_loss, r.last_loss, r.validation_loss);
    assert!(reports.iter().all(|report| bits(report) == bits(&reports[0])));
    result(&options)
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_one() {
    for full in [false, true] {
        let alone = run(1, full);
        assert!(alone.0.len() >= 4, "{} steps", alone.0.len());
        for world in [2, 3, 7] {
            assert!(run(world, full) == alone, "{world} ranks, full: {full}");
        }
    }
}

/// A model with an adapter, and micro-batches with very different numbers of labelled tokens.
struct UnevenBatches {
    _folder: tempfile::TempDir,
    options: TrainOptions,
    micro_batches: Vec<PackedSequence>,
}

/// The statistics of some steps, and every parameter after them.
type StepResults = (Vec<StepStats>, Vec<Vec<f32>>);

impl UnevenBatches {
    fn new(micro_batches: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = common::prepare(folder.path());
        let sequence = |i: usize| {
            let length = 4 + 3 * i;
            let tokens: Vec<u32> = (0..length).map(|j| 3 + ((i * 11 + j * 7) % 30) as u32).collect();
            let labelled = |j: usize| j.is_multiple_of(1 + i % 3) && j + 1 < length;
            let target = |j| if labelled(j) { tokens[j + 1] as i32 } else { -100 };
            PackedSequence {
                targets: (0..length).map(target).collect(),
                lengths: vec![length],
                soft_targets: vec![-100; length],
                tokens: tokens.clone(),
            }
        };
        UnevenBatches { _folder: folder, options, micro_batches: (0..micro_batches).map(sequence).collect() }
    }

    /// Runs two steps on one software GPU per rank; `None` without NVRTC.
    fn emulated_steps(&self, world: usize) -> Option<Vec<StepResults>> {
        or_skip(Device::emulated("sm_80"))?;
        let group = Threads::group_within(world, Duration::from_secs(60));
        let device = || Device::emulated("sm_80").unwrap();
        let ranks = on_ranks_over(group, |host| host, device, |rank| self.steps(rank));
        Some(ranks.into_iter().map(Result::unwrap).collect())
    }

    /// Runs two steps; returns their losses and norms, and every parameter.
    fn steps(&self, rank: Rank) -> Result<StepResults> {
        let base = Checkpoint::open(&self.options.model)?;
        let adapter = Adapter::init_lora(base.config(), 4, 8.0, 0.1, &LinearName::ALL, 1)?;
        let adapter = (!self.options.full).then_some(&adapter);
        let mut train_step = TrainStep::new(rank, &self.options, &base, adapter)?;
        let stats = (0..2).map(|_| train_step.run(&self.micro_batches, 0.05)).collect::<Result<_>>()?;
        let parameters =
            train_step.model().trainable().iter().map(|(_, t)| t.to_vec()).collect::<Result<_>>()?;
        Ok((stats, parameters))
    }
}

#[test]
fn uneven_shares_and_ranks_without_work_change_no_bit_on_any_rank() {
    for micro_batches in [1, 2, 5, 11] {
        let uneven = UnevenBatches::new(micro_batches);
        let alone = uneven.steps(Rank::from(&Device::cpu())).unwrap();
        for world in [2, 3, 4] {
            for rank in on_ranks(world, |rank| uneven.steps(rank)) {
                assert!(rank.unwrap() == alone, "{micro_batches} micro-batches on {world} ranks");
            }
        }
    }
}

#[test]
fn ranks_on_software_gpus_give_the_bits_of_one() {
    for full in [false, true] {
        let mut uneven = UnevenBatches::new(3);
        uneven.options.full = full;
        let Some(alone) = uneven.emulated_steps(1) else { return };
        for world in [2, 4] {
            for rank in uneven.emulated_steps(world).unwrap() {
                assert!(rank == alone[0], "{world} ranks, full: {full}");
            }
        }
        // The results are close to those of the CPU.
        let cpu = uneven.steps(Rank::from(&Device::cpu())).unwrap().0;
        for (a, b) in cpu.iter().zip(&alone[0].0) {
            assert_abs_diff_eq!(a.loss, b.loss, epsilon = 1e-3);
            assert_abs_diff_eq!(a.grad_norm / b.grad_norm, 1.0, epsilon = 1e-2);
        }
    }
}

#[test]
fn a_denominator_of_the_ranks_own_labels_is_detected() {
    // A common error of data-parallel trainers: each rank divides by the number of its own labels.
    let uneven = UnevenBatches::new(4);
    let alone = uneven.steps(Rank::from(&Device::cpu())).unwrap();
    let own_labels = on_ranks(2, |rank| {
        let others = if rank.comm.rank() == 0 { 2..4 } else { 0..2 };
        let mut micro_batches = uneven.micro_batches.clone();
        micro_batches[others].iter_mut().for_each(|other| other.targets.fill(-100));
        let options = uneven.options.clone();
        UnevenBatches { micro_batches, options, _folder: tempfile::tempdir().unwrap() }.steps(rank)
    });
    assert!(own_labels.into_iter().all(|rank| rank.unwrap() != alone));
}

/// A communicator that receives zeros in broadcast number `lost`.
struct LossyComm {
    host: HostComm,
    lost: usize,
    calls: AtomicUsize,
}

impl Comm for LossyComm {
    fn rank(&self) -> usize {
        self.host.rank()
    }
    fn world(&self) -> usize {
        self.host.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: ReduceOp) -> Result<()> {
        self.host.all_reduce(x, how)
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.host.all_gather(x, out)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.host.reduce_scatter(x, out)
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.host.secondary().broadcast(parts)?;
        if self.calls.fetch_add(1, Ordering::Relaxed) != self.lost {
            return Ok(());
        }
        let others = parts.iter_mut().filter(|(owner, _)| *owner != self.host.rank());
        others.map(|(_, t)| t).try_for_each(Tensor::zero)
    }
    fn barrier(&self) -> Result<()> {
        self.host.barrier()
    }
    fn secondary(&self) -> &dyn Comm {
        self
    }
    fn abort(&self, why: &str) {
        self.host.abort(why);
    }
    fn seconds(&self) -> f64 {
        self.host.seconds()
    }
}

#[test]
fn a_lost_broadcast_is_detected() {
    let uneven = UnevenBatches::new(4);
    let alone = uneven.steps(Rank::from(&Device::cpu())).unwrap();
    let lossy = |lost| {
        let wrap = move |host| LossyComm { host, lost, calls: AtomicUsize::new(0) };
        on_ranks_over(Threads::group(2), wrap, Device::cpu, |rank| uneven.steps(rank))
    };
    // Two steps, each with a broadcast of the loss and of the gradients of two layers.
    for lost in 0..6 {
        for rank in lossy(lost) {
            assert!(rank.unwrap() != alone, "the loss of broadcast {lost} is not detected");
        }
    }
    for rank in lossy(6) {
        assert!(rank.unwrap() == alone, "there are six broadcasts");
    }
}

#[test]
fn ranks_with_other_recipes_or_parameters_are_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), false);
    let errors = on_ranks(3, |rank| {
        let lr = if rank.comm.rank() == 2 { 0.1 } else { options.lr };
        train(&TrainOptions { lr, ..options.clone() }, rank, &mut |_| ())
    });
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rank 2 has another recipe or checkpoint than rank 0"), "{error}");
    }
    assert!(!options.out.join("metrics.jsonl").exists());
    // Rank 1 loses a broadcast in the second step.
    let wrap = |host: HostComm| {
        let lost = if host.rank() == 1 { 4 } else { usize::MAX };
        LossyComm { host, lost, calls: AtomicUsize::new(0) }
    };
    let group = Threads::group_within(2, Duration::from_secs(5));
    for error in on_ranks_over(group, wrap, Device::cpu, |rank| train(&options, rank, &mut |_| ())) {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rank 1 has another set of parameters after step 2 than rank 0"), "{error}");
    }
}

#[test]
fn a_failing_rank_ends_all_ranks_and_the_last_checkpoint_stays_complete() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), false);
    let expected = run(1, false);
    let errors = on_ranks(2, |rank| {
        let odd = rank.comm.rank() == 1;
        let comm = rank.comm.clone();
        train(&options, rank, &mut |event| {
            if let codelsi_train::TrainEvent::Step(metric, _) = event
                && odd
                && metric.step == 3
            {
                comm.abort(&Error::new("its machine is on fire").to_string());
            }
        })
    });
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rank 1: its machine is on fire"), "{error}");
    }
    let options = TrainOptions { resume: true, ..options };
    let steps: Vec<usize> = on_ranks(3, |rank| {
        let mut first = usize::MAX;
        train(&options, rank, &mut |event| {
            if let codelsi_train::TrainEvent::Step(metric, _) = event {
                first = first.min(metric.step);
            }
        })?;
        Ok(first)
    })
    .into_iter()
    .map(Result::unwrap)
    .collect();
    assert_eq!(steps, [3; 3], "the checkpoint of step 2 is the last");
    assert!(result(&options) == expected);
}

#[test]
fn the_plan_of_a_rank_equals_the_accounts_of_its_software_gpu() {
    let Some(_) = or_skip(Device::emulated("sm_80")) else { return };
    for full in [false, true] {
        let mut uneven = UnevenBatches::new(1);
        uneven.options.full = full;
        uneven.options.checkpointing = ActivationCheckpointing::Layers(1);
        let options = &uneven.options;
        let micro_batches = vec![uneven.micro_batches[0].clone(); 3];
        let base = Checkpoint::open(&options.model).unwrap();
        let adapter = Adapter::init_lora(base.config(), 4, 8.0, 0.1, &LinearName::ALL, 1).unwrap();
        let adapter = (!full).then_some(&adapter);
        let device = || Device::emulated("sm_80").unwrap();
        // The last of the four ranks has no micro-batch.
        let ranks = on_ranks_over(
            Threads::group(4),
            |host| host,
            device,
            |rank| {
                let (device, number) = (rank.device.clone(), rank.comm.rank());
                let planner = Planner {
                    device: &device,
                    options,
                    base: &base,
                    adapter,
                    rank: number,
                    world: 4,
                    layout: Layout::Replicate,
                    budget: None,
                };
                let planned = planner.plan_step(&micro_batches)?.usage;
                TrainStep::new(rank, options, &base, adapter)?.run(&micro_batches, 1e-3)?;
                let run = device.ledger().usage();
                Ok(((planned.peak, planned.at_peak), (run.peak, run.at_peak)))
            },
        );
        for (number, rank) in ranks.into_iter().enumerate() {
            let (planned, run) = rank.unwrap();
            assert_eq!(planned, run, "rank {number}, full: {full}");
        }
    }
}
