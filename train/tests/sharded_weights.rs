//! Layout shard (ZeRO-3 of the frozen weights): the bits of one rank in a fraction of its memory, and failed gathers of
//! weights are detected.

mod common;
mod method_list;
mod on_ranks;

use codelsi_engine::cuda::DeviceProperties;
use codelsi_engine::memory::Usage;
use codelsi_engine::{Comm, Ctx, DType, Device, Label, Ledger, Rank, ReduceOp, Result, Tensor, Threads};
use codelsi_model::adapter::{Adapter, AdapterConfig, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::generate::{Completion, GenerationRequest, SamplingParams, SchedulerConfig, generate};
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use codelsi_testing::or_skip;
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::{Planner, usable_gpu_memory};
use codelsi_train::train_step::{StepStats, TrainStep};
use codelsi_train::{TrainEvent, TrainOptions, train};
use on_ranks::{on_ranks, on_ranks_over};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LAYERS: usize = 3;

/// A model whose matrices are not divisible by any number of ranks but two, an adapter, and the micro-batches of a
/// step.
struct Fixture {
    _folder: tempfile::TempDir,
    base: Checkpoint,
    adapter: Adapter,
    options: TrainOptions,
    micro_batches: Vec<PackedSequence>,
}

impl Fixture {
    fn new(tied: bool, micro_batches: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiny = synthetic::config("tiny").unwrap();
        let sizes = ModelConfig {
            hidden: 16,
            intermediate: 40,
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            vocab: 50,
            ..tiny
        };
        let config = ModelConfig { layers: LAYERS, max_positions: 64, tied_embeddings: tied, ..sizes };
        synthetic::write_random_model(&folder.path().join("m"), &config, 1, &mut |_, _| {}).unwrap();
        let base = Checkpoint::open(folder.path().join("m")).unwrap();
        let adapter = Adapter::init_lora(&config, 4, 8.0, 0.1, &LinearName::ALL, 1).unwrap();
        let options = TrainOptions { compute: DType::F32, dropout: 0.1, ..TrainOptions::default() };
        let micro_batches = (0..micro_batches).map(|i| sequence(6 + 5 * i)).collect();
        Fixture { _folder: folder, base, adapter, options, micro_batches }
    }

    fn recompute(mut self, layers: usize) -> Self {
        self.options.checkpointing = ActivationCheckpointing::Layers(layers);
        self
    }

    /// Replaces the adapter by one of another method, without zeros.
    fn method(mut self, method: Method) -> Self {
        let settings = AdapterConfig { method, ..self.adapter.config };
        self.adapter = Adapter::init(&self.base, &settings, 1).unwrap();
        let nonzero = |i: usize| 0.1 * (i as f32 * 0.7).sin();
        for pair in self.adapter.modules.values_mut() {
            pair.b.slice_mut::<f32>().unwrap().iter_mut().enumerate().for_each(|(i, b)| *b = nonzero(i));
        }
        self
    }

    fn train_step(&self, split: RankLayout) -> Result<TrainStep<'_>> {
        TrainStep::new(split, &self.options, &self.base, Some(&self.adapter))
    }

    /// Runs two steps and two validations as `split` and returns all results.
    fn steps(&self, split: RankLayout) -> Result<StepResults> {
        let mut train_step = self.train_step(split)?;
        let mut stats = Vec::new();
        let mut validated = Vec::new();
        for _ in 0..2 {
            stats.push(train_step.run(&self.micro_batches, 0.05)?);
            validated.push(train_step.validate(&self.micro_batches)?);
        }
        let values = |t: &Tensor| t.to_vec::<f32>();
        let model = train_step.model();
        let parameters = model.trainable().iter().map(|(_, t)| values(t)).collect::<Result<_>>()?;
        let moments = train_step.moments()?.into_values().map(|(m, v)| Ok([values(&m)?, values(&v)?]));
        let moments = moments.collect::<Result<_>>()?;
        Ok(StepResults { stats, validated, parameters, moments, logits: logits(model)? })
    }
}

/// The results of some steps.
#[derive(PartialEq)]
struct StepResults {
    stats: Vec<StepStats>,
    validated: Vec<f64>,
    parameters: Vec<Vec<f32>>,
    moments: Vec<[Vec<f32>; 2]>,
    logits: Vec<u8>,
}

/// A sequence with a loss on all but the first few tokens.
fn sequence(tokens: usize) -> PackedSequence {
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| 3 + i * 37 % 46).collect();
    let targets = (0..tokens.len()).map(|i| if i < 3 { -100 } else { tokens[i] as i32 }).collect();
    PackedSequence::concat([&Document { tokens, targets }])
}

/// The logits of a document that all ranks compute.
fn logits(model: &Llama) -> Result<Vec<u8>> {
    let cx = Ctx::inference(model.rank_layout().device());
    let batch = PackedBatch::new(cx.device(), &[&[1, 40, 7, 7, 9, 30, 2]])?;
    let h = model.forward(&cx, &batch, ForwardOptions::default())?;
    model.logits(&cx, &model.final_norm(&cx, &h)?)?.to_bytes()
}

fn alone(device: &Device) -> RankLayout {
    Rank::from(device).into()
}

fn sharded(rank: Rank) -> RankLayout {
    RankLayout::new(rank, Layout::Shard)
}

fn has_software_gpu() -> bool {
    or_skip(Device::emulated("sm_80")).is_some()
}

fn software_gpu() -> Device {
    Device::emulated("sm_80").unwrap()
}

/// Runs `f` on one software GPU per rank.
fn on_software_gpus<T: Send>(world: usize, f: impl Fn(Rank) -> Result<T> + Sync) -> Vec<Result<T>> {
    on_ranks_over(Threads::group_within(world, Duration::from_secs(60)), |host| host, software_gpu, f)
}

#[test]
fn shard_is_replicate_bit_for_bit() {
    // With 1 micro-batch only the first rank has work; 4 micro-batches are divided over 3 ranks as 2, 2 and 0.
    for (tied, recompute, micro_batches) in [(false, 0, 4), (true, 2, 4), (false, LAYERS, 5), (true, 0, 1)] {
        let fixture = Fixture::new(tied, micro_batches).recompute(recompute);
        let expected = fixture.steps(alone(&Device::cpu())).unwrap();
        for ranks in [2, 3] {
            for rank in on_ranks(ranks, |rank| fixture.steps(sharded(rank))) {
                assert!(rank.unwrap() == expected, "{ranks} ranks, tied: {tied}, {recompute} recomputed");
            }
        }
    }
}

#[test]
fn shard_is_replicate_bit_for_bit_on_software_gpus() {
    if !has_software_gpu() {
        return;
    }
    let lora = [(false, 1, DType::BF16, 2, Method::LORA), (true, 0, DType::F32, 3, Method::LORA)];
    let others = method_list::METHODS.map(|method| (false, 1, DType::BF16, 2, method));
    for (tied, recompute, compute, ranks, method) in lora.into_iter().chain(others) {
        let mut fixture = Fixture::new(tied, 3).recompute(recompute).method(method);
        fixture.options.compute = compute;
        let expected = fixture.steps(alone(&software_gpu())).unwrap();
        for rank in on_software_gpus(ranks, |rank| fixture.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{ranks} ranks, tied: {tied}, {compute:?}, {method}");
        }
    }
}

#[test]
fn shard_is_replicate_bit_for_bit_with_every_method() {
    for method in method_list::METHODS {
        let fixture = Fixture::new(false, 4).recompute(1).method(method);
        let expected = fixture.steps(alone(&Device::cpu())).unwrap();
        for rank in on_ranks(3, |rank| fixture.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{method}");
        }
    }
}

/// Backward stops before the first layer; a rank without work takes part in as many gathers as the others.
#[test]
fn first_layers_without_an_adapter_change_no_bit() {
    for (targets, recompute) in
        [(vec![LinearName::Q], 0), (vec![LinearName::Down], 1), (vec![LinearName::Up], 0)]
    {
        let mut fixture = Fixture::new(false, 3).recompute(recompute);
        fixture.adapter = Adapter::init_lora(fixture.base.config(), 4, 8.0, 0.1, &targets, 1).unwrap();
        fixture.adapter.modules.retain(|path, _| path.contains("layers.2."));
        let expected = fixture.steps(alone(&Device::cpu())).unwrap();
        for rank in on_ranks(2, |rank| fixture.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{targets:?}");
        }
    }
}

#[test]
fn generation_in_lock_step_is_that_of_one_rank() {
    let fixtures =
        method_list::METHODS.into_iter().chain([Method::LORA]).map(|m| Fixture::new(false, 1).method(m));
    fixtures.for_each(|fixture| generation_is_that_of_one_rank(&fixture));
}

fn generation_is_that_of_one_rank(fixture: &Fixture) {
    let request = |tokens: u32, n, seed| GenerationRequest {
        n,
        sampling: SamplingParams { temperature: 0.8, seed, ..SamplingParams::default() },
        ..GenerationRequest::greedy((0..tokens).map(|i| 3 + i * 11 % 46).collect(), 7)
    };
    let requests = [request(21, 2, 1), request(9, 3, 2), request(30, 1, 3)];
    // Chunked prefill: some steps have no logits.
    let limits =
        SchedulerConfig { max_sequences: 4, prefill_chunk: 8, page_size: 4, ..SchedulerConfig::default() };
    let run = |split: RankLayout| -> Result<Vec<Vec<Completion>>> {
        let device = split.device().clone();
        let mut model = Llama::load(split, &fixture.base, DType::F32, Trainable::Nothing)?;
        model.attach(&fixture.adapter, Trainable::Nothing)?;
        generate(&device, &model, None, &requests, limits, &mut |_| {})
    };
    let expected = run(alone(&Device::cpu())).unwrap();
    for rank in on_ranks(3, |rank| run(sharded(rank))) {
        assert!(rank.unwrap() == expected, "{}", fixture.adapter.config.method);
    }
}

/// A communicator that records its gathers, and returns a wrong matrix once.
struct RecordingComm {
    comm: Arc<dyn Comm>,
    ledger: Arc<Ledger>,
    fault: Option<(usize, Fault)>,
    record: Mutex<GatherRecord>,
}

#[derive(Default)]
struct GatherRecord {
    matrices: usize,
    /// Peak bytes of weights during a gather.
    peak: usize,
    /// The last matrix gathered of each size.
    last: HashMap<usize, Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Zeros,
    /// An earlier matrix of the same size.
    Stale,
}

impl RecordingComm {
    /// Wraps the communicator of `rank`; `fault` is what happens to the matrix of that number.
    fn new(rank: Rank, fault: Option<(usize, Fault)>) -> (Rank, Arc<RecordingComm>) {
        let ledger = rank.device.ledger().clone();
        let recording = Arc::new(RecordingComm { comm: rank.comm, ledger, fault, record: Mutex::default() });
        (Rank { device: rank.device, comm: recording.clone() }, recording)
    }
}

impl Comm for RecordingComm {
    fn rank(&self) -> usize {
        self.comm.rank()
    }
    fn world(&self) -> usize {
        self.comm.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: ReduceOp) -> Result<()> {
        self.comm.all_reduce(x, how)
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.comm.all_gather(x, out)?;
        let mut record = self.record.lock().unwrap();
        record.peak = record.peak.max(self.ledger.usage().now[Label::Weights as usize]);
        match self.fault.filter(|(number, _)| *number == record.matrices) {
            Some((_, Fault::Zeros)) => out.zero()?,
            Some((_, Fault::Stale)) => out.write_bytes(&record.last[&out.byte_len()])?,
            None => {}
        }
        record.matrices += 1;
        record.last.insert(out.byte_len(), out.to_bytes()?);
        Ok(())
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.comm.reduce_scatter(x, out)
    }
    fn broadcast(&self, parts: &mut [(usize, Tensor)]) -> Result<()> {
        self.comm.broadcast(parts)
    }
    fn barrier(&self) -> Result<()> {
        self.comm.barrier()
    }
    fn secondary(&self) -> &dyn Comm {
        self.comm.secondary()
    }
    fn abort(&self, why: &str) {
        self.comm.abort(why);
    }
    fn seconds(&self) -> f64 {
        self.comm.seconds()
    }
}

#[test]
fn a_failed_gather_is_detected() {
    let fixture = Fixture::new(false, 2);
    let expected = fixture.steps(alone(&Device::cpu())).unwrap();
    let with = |fault| on_ranks(2, |rank| fixture.steps(sharded(RecordingComm::new(rank, fault).0)));
    // The gathers of the first micro-batch: embedding, three layers, head; in backward two layers, then the embedding.
    for number in 0..38 {
        for fault in [Fault::Zeros, Fault::Stale] {
            // A stale matrix needs an earlier one of the same size.
            if matches!(fault, Fault::Stale) && number < 8 {
                continue;
            }
            for rank in with(Some((number, fault))) {
                assert!(rank.unwrap() != expected, "{fault:?} for matrix {number}");
            }
        }
    }
}

/// Bytes of the matrices of each gather group: the embedding, the layers, the head.
fn gather_groups(config: &ModelConfig, ranks: usize, dtype: DType) -> Vec<usize> {
    let padded = |shape: [usize; 2]| (shape[0] * shape[1]).div_ceil(ranks) * ranks * dtype.size();
    let linear = |l| {
        let (out, input) = config.linear_shape(l);
        padded([out, input])
    };
    let table = padded([config.vocab, config.hidden]);
    let layer = LinearName::ALL.into_iter().map(linear).sum();
    [vec![table], vec![layer; config.layers], vec![table]].concat()
}

#[test]
fn a_rank_holds_its_shard_and_two_gather_groups() {
    for (ranks, recompute) in [(2, 0), (3, 2)] {
        let fixture = Fixture::new(false, 4).recompute(recompute);
        let groups = gather_groups(fixture.base.config(), ranks, DType::BF16);
        let two = groups.windows(2).map(|two| two[0] + two[1]).max().unwrap();
        let each = |rank: Rank| {
            let (rank, recording) = RecordingComm::new(rank, None);
            let mut train_step = fixture.train_step(sharded(rank))?;
            let held = recording.ledger.usage().now[Label::Weights as usize];
            train_step.run(&fixture.micro_batches, 0.05)?;
            let first = recording.record.lock().unwrap().matrices;
            train_step.run(&fixture.micro_batches, 0.05)?;
            train_step.validate(&fixture.micro_batches)?;
            let record = recording.record.lock().unwrap();
            Ok((record.peak - held, first, record.matrices - first))
        };
        // Per micro-batch: forward from the second layer to the head, backward from the last layer but one to the embedding.
        let batch = 7 * (2 * LAYERS - 2) + 2;
        let batches = 2;
        // The first layer is already gathered when validation begins.
        let validation = batches * (7 * LAYERS + 2) - 7;
        for rank in on_ranks(ranks, each) {
            let (peak, first, second) = rank.unwrap();
            assert_eq!(peak, two);
            assert_eq!(
                first,
                1 + 7 + batches * batch,
                "the first groups are gathered in the first micro-batch"
            );
            assert_eq!(second, batches * batch + validation);
        }
    }
}

#[test]
fn the_plan_of_a_rank_equals_the_accounts_of_its_software_gpu() {
    if !has_software_gpu() {
        return;
    }
    for (tied, recompute, compute, ranks, distill) in [
        (false, 1, DType::BF16, 2, 0.0),
        (true, 3, DType::F32, 3, 0.0),
        (false, 1, DType::BF16, 2, 0.5),
        (true, 0, DType::F32, 3, 0.5),
    ] {
        let mut fixture = Fixture::new(tied, 0).recompute(recompute);
        (fixture.options.compute, fixture.options.distill) = (compute, distill);
        fixture.micro_batches = vec![sequence(20); 2];
        if distill > 0.0 {
            // Rank 0 has no soft targets, but joins the gathers of rank 1's teacher.
            fixture.micro_batches[1] = sequence(20).with_both_losses();
        }
        let teacher = Some(&fixture.adapter).filter(|_| distill > 0.0);
        let each = |rank: Rank| {
            let planner = Planner {
                device: &rank.device.clone(),
                options: &fixture.options,
                base: &fixture.base,
                adapter: Some(&fixture.adapter),
                rank: rank.comm.rank(),
                world: ranks,
                layout: Layout::Shard,
                budget: None,
            };
            let planned = planner.plan_step(&fixture.micro_batches)?.usage;
            let train_step = fixture.train_step(sharded(rank.clone()))?;
            train_step.with_teacher(teacher)?.run(&fixture.micro_batches, 1e-3)?;
            Ok((planned, rank.device.ledger().usage()))
        };
        for (number, rank) in on_software_gpus(ranks, each).into_iter().enumerate() {
            let at_peak = |usage: Usage| (usage.peak, usage.at_peak);
            let (planned, run) = rank.unwrap();
            assert_eq!(at_peak(planned), at_peak(run), "rank {number} of {ranks}, distilling {distill}");
        }
    }
}

/// Trains to the end and returns the bytes of the adapter; rank 1 aborts after step `abort_after`.
fn train_on_ranks(
    options: &TrainOptions,
    ranks: usize,
    layout: Layout,
    abort_after: usize,
) -> Result<Vec<u8>> {
    let each = |rank: Rank| {
        let comm = rank.comm.clone();
        train(options, RankLayout::new(rank, layout), &mut |event| match event {
            TrainEvent::Step(metric, _) if metric.step == abort_after && comm.rank() == 1 => {
                comm.abort("was killed")
            }
            _ => {}
        })
    };
    on_ranks(ranks, each).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(std::fs::read(options.out.join("adapter_model.safetensors")).unwrap())
}

#[test]
fn a_run_resumes_under_another_layout_to_the_same_bytes() {
    let test_options = |folder: &Path| {
        let options = common::prepare(folder);
        TrainOptions { batch: 5, micro_batch: 1, epochs: 2, save_every: 2, validate_every: 2, ..options }
    };
    let folder = tempfile::tempdir().unwrap();
    let expected = train_on_ranks(&test_options(folder.path()), 1, Layout::Replicate, usize::MAX).unwrap();
    for [before, after] in
        [[(2, Layout::Replicate), (3, Layout::Shard)], [(2, Layout::Shard), (1, Layout::Shard)]]
    {
        let folder = tempfile::tempdir().unwrap();
        let options = test_options(folder.path());
        let killed = train_on_ranks(&options, before.0, before.1, 3).unwrap_err().to_string();
        assert!(killed.contains("rank 1: was killed"), "{killed}");
        let options = TrainOptions { resume: true, ..options };
        assert!(
            train_on_ranks(&options, after.0, after.1, usize::MAX).unwrap() == expected,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn full_training_has_nothing_to_shard() {
    let fixture = Fixture::new(false, 1);
    for rank in
        on_ranks(2, |rank| TrainStep::new(sharded(rank), &fixture.options, &fixture.base, None).map(drop))
    {
        let message = rank.unwrap_err().to_string();
        assert!(message.contains("full training has none: use --layout replicate"), "{message}");
    }
}

/// Training of Code Llama 13B on two GPUs of 40 GB: with half of the weights on each, fewer layers are recomputed.
#[test]
fn sharded_weights_leave_room_for_saved_activations() {
    let base =
        Checkpoint::shapes_only(synthetic::config("code-llama-13b").unwrap(), safetensors::Dtype::BF16);
    let adapter =
        Adapter::allocate_lora(&Device::plan(), base.config(), 16, 32.0, 0.05, &LinearName::ALL).unwrap();
    let options = TrainOptions::default();
    let device = Device::plan_card(DeviceProperties::a100());
    let plan = |layout| {
        let budget = Some(usable_gpu_memory(40_000_000_000));
        let (device, options, base) = (&device, &options, &base);
        let adapter = Some(&adapter);
        Planner { device, options, base, adapter, rank: 0, world: 2, layout, budget }
            .plan_largest_rank()
            .unwrap()
    };
    let (replicas, shards) = (plan(Layout::Replicate), plan(Layout::Shard));
    let groups = gather_groups(base.config(), 2, DType::BF16);
    let half = groups.iter().sum::<usize>() / 2;
    let max = half + 2 * groups[1] + (64 << 20); // norms, and the rotary table
    assert!((half..max).contains(&shards.usage.at_peak_of(Label::Weights)), "{shards}");
    assert!(shards.fits() && shards.recompute < replicas.recompute, "{shards}\n{replicas}");
}
