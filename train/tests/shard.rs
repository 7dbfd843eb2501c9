//! Layout shard: the bits of one rank, a fraction of its memory; and matrices that did not come are seen.

mod common;
mod every;
mod on_ranks;

use codelsi_engine::cuda::Properties;
use codelsi_engine::memory::Usage;
use codelsi_engine::{Comm, Ctx, DType, Device, Label, Ledger, Rank, Reduce, Result, Tensor, Threads};
use codelsi_model::adapter::{Adapter, Method, Settings};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{Config, Linear};
use codelsi_model::generate::{Completion, Limits, Request, Sampling, generate};
use codelsi_model::llama::{Batch, ForwardOptions, Llama};
use codelsi_model::parallel::{Layout, Split};
use codelsi_model::synthetic;
use codelsi_model::trainable::Train;
use codelsi_train::learner::{Found, Learner};
use codelsi_train::options::Checkpointing;
use codelsi_train::pack::{Document, Sequence};
use codelsi_train::plan::{Planner, usable};
use codelsi_train::{Event, TrainOptions, train};
use on_ranks::{on_ranks, on_ranks_over};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LAYERS: usize = 3;

/// A model whose matrices no number of ranks but two divides, an adapter and a step's work.
struct World {
    _folder: tempfile::TempDir,
    base: Checkpoint,
    adapter: Adapter,
    options: TrainOptions,
    micro_batches: Vec<Sequence>,
}

impl World {
    fn new(tied: bool, micro_batches: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiny = synthetic::config("tiny").unwrap();
        let sizes =
            Config { hidden: 16, intermediate: 40, heads: 2, kv_heads: 1, head_dim: 8, vocab: 50, ..tiny };
        let config = Config { layers: LAYERS, max_positions: 64, tied, ..sizes };
        synthetic::make(&folder.path().join("m"), &config, 1, &mut |_, _| {}).unwrap();
        let base = Checkpoint::open(folder.path().join("m")).unwrap();
        let adapter = Adapter::fresh(&config, 4, 8.0, 0.1, &Linear::ALL, 1).unwrap();
        let options = TrainOptions { compute: DType::F32, dropout: 0.1, ..TrainOptions::default() };
        let micro_batches = (0..micro_batches).map(|i| sequence(6 + 5 * i)).collect();
        World { _folder: folder, base, adapter, options, micro_batches }
    }

    fn recompute(mut self, layers: usize) -> Self {
        self.options.checkpointing = Checkpointing::Layers(layers);
        self
    }

    /// With an adapter of another method, in which nothing is zero.
    fn method(mut self, method: Method) -> Self {
        let settings = Settings { method, ..self.adapter.settings };
        self.adapter = Adapter::begun(&self.base, &settings, 1).unwrap();
        let shaken = |i: usize| 0.1 * (i as f32 * 0.7).sin();
        for pair in self.adapter.pairs.values_mut() {
            pair.b.slice_mut::<f32>().unwrap().iter_mut().enumerate().for_each(|(i, b)| *b = shaken(i));
        }
        self
    }

    fn learner(&self, split: Split) -> Result<Learner<'_>> {
        Learner::new(split, &self.options, &self.base, Some(&self.adapter))
    }

    /// Everything that two steps and two validations of `split` compute.
    fn steps(&self, split: Split) -> Result<Steps> {
        let mut learner = self.learner(split)?;
        let mut found = Vec::new();
        let mut validated = Vec::new();
        for _ in 0..2 {
            found.push(learner.step(&self.micro_batches, 0.05)?);
            validated.push(learner.validate(&self.micro_batches)?);
        }
        let values = |t: &Tensor| t.to_vec::<f32>();
        let model = learner.model();
        let parameters = model.trainable().iter().map(|(_, t)| values(t)).collect::<Result<_>>()?;
        let moments = learner.moments()?.into_values().map(|(m, v)| Ok([values(&m)?, values(&v)?]));
        let moments = moments.collect::<Result<_>>()?;
        Ok(Steps { found, validated, parameters, moments, logits: logits(model)? })
    }
}

/// What is computed in some steps.
#[derive(PartialEq)]
struct Steps {
    found: Vec<Found>,
    validated: Vec<f64>,
    parameters: Vec<Vec<f32>>,
    moments: Vec<[Vec<f32>; 2]>,
    logits: Vec<u8>,
}

/// Some tokens, all but the first few learned.
fn sequence(tokens: usize) -> Sequence {
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| 3 + i * 37 % 46).collect();
    let targets = (0..tokens.len()).map(|i| if i < 3 { -100 } else { tokens[i] as i32 }).collect();
    Sequence::of([&Document { tokens, targets }])
}

/// Of a document that all ranks compute.
fn logits(model: &Llama) -> Result<Vec<u8>> {
    let cx = Ctx::inference(model.split().device());
    let batch = Batch::new(cx.device(), &[&[1, 40, 7, 7, 9, 30, 2]])?;
    let h = model.forward(&cx, &batch, ForwardOptions::default())?;
    model.logits(&cx, &model.normed(&cx, &h)?)?.to_bytes()
}

fn alone(device: &Device) -> Split {
    Rank::from(device).into()
}

fn sharded(rank: Rank) -> Split {
    Split::new(rank, Layout::Shard)
}

/// Whether there is a software GPU; says so where there is none. With `CODELSI_REQUIRE=all` that is a failure.
fn has_emulator() -> bool {
    Device::emulated("sm_80")
        .inspect_err(|e| {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
        })
        .is_ok()
}

fn software_gpu() -> Device {
    Device::emulated("sm_80").unwrap()
}

/// [`on_ranks`], on software GPUs.
fn on_software_gpus<T: Send>(world: usize, f: impl Fn(Rank) -> Result<T> + Sync) -> Vec<Result<T>> {
    on_ranks_over(Threads::group_within(world, Duration::from_secs(60)), |host| host, software_gpu, f)
}

#[test]
fn shard_is_replicate_bit_for_bit() {
    // With 1 micro-batch all ranks but the first have none, with 4 the shares of 3 ranks are 2, 2 and 0.
    for (tied, recompute, micro_batches) in [(false, 0, 4), (true, 2, 4), (false, LAYERS, 5), (true, 0, 1)] {
        let world = World::new(tied, micro_batches).recompute(recompute);
        let expected = world.steps(alone(&Device::cpu())).unwrap();
        for ranks in [2, 3] {
            for rank in on_ranks(ranks, |rank| world.steps(sharded(rank))) {
                assert!(rank.unwrap() == expected, "{ranks} ranks, tied: {tied}, {recompute} recomputed");
            }
        }
    }
}

#[test]
fn shard_is_replicate_bit_for_bit_on_software_gpus() {
    if !has_emulator() {
        return;
    }
    let lora = [(false, 1, DType::BF16, 2, Method::LORA), (true, 0, DType::F32, 3, Method::LORA)];
    let others = every::METHODS.map(|method| (false, 1, DType::BF16, 2, method));
    for (tied, recompute, compute, ranks, method) in lora.into_iter().chain(others) {
        let mut world = World::new(tied, 3).recompute(recompute).method(method);
        world.options.compute = compute;
        let expected = world.steps(alone(&software_gpu())).unwrap();
        for rank in on_software_gpus(ranks, |rank| world.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{ranks} ranks, tied: {tied}, {compute:?}, {method}");
        }
    }
}

#[test]
fn shard_is_replicate_bit_for_bit_with_every_method() {
    for method in every::METHODS {
        let world = World::new(false, 4).recompute(1).method(method);
        let expected = world.steps(alone(&Device::cpu())).unwrap();
        for rank in on_ranks(3, |rank| world.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{method}");
        }
    }
}

/// Backward ends before it comes to the first layer; a rank without work walks as far as the others.
#[test]
fn first_layers_without_an_adapter_change_no_bit() {
    for (targets, recompute) in [(vec![Linear::Q], 0), (vec![Linear::Down], 1), (vec![Linear::Up], 0)] {
        let mut world = World::new(false, 3).recompute(recompute);
        world.adapter = Adapter::fresh(world.base.config(), 4, 8.0, 0.1, &targets, 1).unwrap();
        world.adapter.pairs.retain(|path, _| path.contains("layers.2."));
        let expected = world.steps(alone(&Device::cpu())).unwrap();
        for rank in on_ranks(2, |rank| world.steps(sharded(rank))) {
            assert!(rank.unwrap() == expected, "{targets:?}");
        }
    }
}

#[test]
fn generation_in_lock_step_is_that_of_one_rank() {
    let worlds = every::METHODS.into_iter().chain([Method::LORA]).map(|m| World::new(false, 1).method(m));
    worlds.for_each(|world| generation_is_that_of_one_rank(&world));
}

fn generation_is_that_of_one_rank(world: &World) {
    let request = |tokens: u32, n, seed| Request {
        n,
        sampling: Sampling { temperature: 0.8, seed, ..Sampling::default() },
        ..Request::greedy((0..tokens).map(|i| 3 + i * 11 % 46).collect(), 7)
    };
    let requests = [request(21, 2, 1), request(9, 3, 2), request(30, 1, 3)];
    // Prompts come in pieces: some steps have no logits.
    let limits = Limits { batch: 4, prefill: 8, page_size: 4, ..Limits::default() };
    let run = |split: Split| -> Result<Vec<Vec<Completion>>> {
        let device = split.device().clone();
        let mut model = Llama::load(split, &world.base, DType::F32, Train::Nothing)?;
        model.attach(&world.adapter, Train::Nothing)?;
        generate(&device, &model, None, &requests, limits, &mut |_| {})
    };
    let expected = run(alone(&Device::cpu())).unwrap();
    for rank in on_ranks(3, |rank| run(sharded(rank))) {
        assert!(rank.unwrap() == expected, "{}", world.adapter.settings.method);
    }
}

/// A rank's link that keeps books of gathers, and brings a wrong matrix once.
struct Watched {
    comm: Arc<dyn Comm>,
    ledger: Arc<Ledger>,
    wrong: Option<(usize, Wrong)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    matrices: usize,
    /// The most bytes of weights while one is gathered.
    most: usize,
    /// What was gathered last, by its size.
    last: HashMap<usize, Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Zeros,
    /// An earlier matrix of the same size.
    Stale,
}

impl Watched {
    /// `rank` watched, with what happens to one of the matrices.
    fn new(rank: Rank, wrong: Option<(usize, Wrong)>) -> (Rank, Arc<Watched>) {
        let ledger = rank.device.ledger().clone();
        let watched = Arc::new(Watched { comm: rank.comm, ledger, wrong, seen: Mutex::default() });
        (Rank { device: rank.device, comm: watched.clone() }, watched)
    }
}

impl Comm for Watched {
    fn rank(&self) -> usize {
        self.comm.rank()
    }
    fn world(&self) -> usize {
        self.comm.world()
    }
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        self.comm.all_reduce(x, how)
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        self.comm.all_gather(x, out)?;
        let mut seen = self.seen.lock().unwrap();
        seen.most = seen.most.max(self.ledger.usage().now[Label::Weights as usize]);
        match self.wrong.filter(|(number, _)| *number == seen.matrices) {
            Some((_, Wrong::Zeros)) => out.zero()?,
            Some((_, Wrong::Stale)) => out.write_bytes(&seen.last[&out.byte_len()])?,
            None => {}
        }
        seen.matrices += 1;
        seen.last.insert(out.byte_len(), out.to_bytes()?);
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
    fn beside(&self) -> &dyn Comm {
        self.comm.beside()
    }
    fn abort(&self, why: &str) {
        self.comm.abort(why);
    }
    fn seconds(&self) -> f64 {
        self.comm.seconds()
    }
}

#[test]
fn a_matrix_that_does_not_come_is_seen() {
    let world = World::new(false, 2);
    let expected = world.steps(alone(&Device::cpu())).unwrap();
    let with = |wrong| on_ranks(2, |rank| world.steps(sharded(Watched::new(rank, wrong).0)));
    // The first batch: the embedding, three layers, the head; two layers in backward, and the embedding again.
    for number in 0..38 {
        for wrong in [Wrong::Zeros, Wrong::Stale] {
            // No matrix of a size came before the first.
            if matches!(wrong, Wrong::Stale) && number < 8 {
                continue;
            }
            for rank in with(Some((number, wrong))) {
                assert!(rank.unwrap() != expected, "{wrong:?} for matrix {number}");
            }
        }
    }
}

/// Bytes of the matrices of each stop: the embedding, the layers, the head.
fn stops(config: &Config, ranks: usize, dtype: DType) -> Vec<usize> {
    let padded = |shape: [usize; 2]| (shape[0] * shape[1]).div_ceil(ranks) * ranks * dtype.size();
    let linear = |l| {
        let (out, input) = config.linear_shape(l);
        padded([out, input])
    };
    let table = padded([config.vocab, config.hidden]);
    let layer = Linear::ALL.into_iter().map(linear).sum();
    [vec![table], vec![layer; config.layers], vec![table]].concat()
}

#[test]
fn a_rank_holds_its_part_and_two_stops() {
    for (ranks, recompute) in [(2, 0), (3, 2)] {
        let world = World::new(false, 4).recompute(recompute);
        let stops = stops(world.base.config(), ranks, DType::BF16);
        let two = stops.windows(2).map(|two| two[0] + two[1]).max().unwrap();
        let each = |rank: Rank| {
            let (rank, watched) = Watched::new(rank, None);
            let mut learner = world.learner(sharded(rank))?;
            let held = watched.ledger.usage().now[Label::Weights as usize];
            learner.step(&world.micro_batches, 0.05)?;
            let first = watched.seen.lock().unwrap().matrices;
            learner.step(&world.micro_batches, 0.05)?;
            learner.validate(&world.micro_batches)?;
            let seen = watched.seen.lock().unwrap();
            Ok((seen.most - held, first, seen.matrices - first))
        };
        // Of a batch: up from the second layer to the head; down from the layer below the last to the embedding.
        let batch = 7 * (2 * LAYERS - 2) + 2;
        let batches = 2;
        // The first layer is there when validation begins.
        let validation = batches * (7 * LAYERS + 2) - 7;
        for rank in on_ranks(ranks, each) {
            let (most, first, second) = rank.unwrap();
            assert_eq!(most, two);
            assert_eq!(first, 1 + 7 + batches * batch, "the first stops are gathered in the first batch");
            assert_eq!(second, batches * batch + validation);
        }
    }
}

#[test]
fn the_plan_of_a_rank_is_its_software_gpu_s_books() {
    if !has_emulator() {
        return;
    }
    for (tied, recompute, compute, ranks) in [(false, 1, DType::BF16, 2), (true, 3, DType::F32, 3)] {
        let mut world = World::new(tied, 0).recompute(recompute);
        world.options.compute = compute;
        world.micro_batches = vec![sequence(20); 2];
        let each = |rank: Rank| {
            let planner = Planner {
                device: &rank.device.clone(),
                options: &world.options,
                base: &world.base,
                adapter: Some(&world.adapter),
                rank: rank.comm.rank(),
                world: ranks,
                layout: Layout::Shard,
                budget: None,
            };
            let planned = planner.step(&world.micro_batches)?.usage;
            world.learner(sharded(rank.clone()))?.step(&world.micro_batches, 1e-3)?;
            Ok((planned, rank.device.ledger().usage()))
        };
        for (number, rank) in on_software_gpus(ranks, each).into_iter().enumerate() {
            let at_peak = |usage: Usage| (usage.peak, usage.at_peak);
            let (planned, run) = rank.unwrap();
            assert_eq!(at_peak(planned), at_peak(run), "rank {number} of {ranks}");
        }
    }
}

/// Trains to the end; rank 1 breaks off after step `dies`.
fn trained(options: &TrainOptions, ranks: usize, layout: Layout, dies: usize) -> Result<Vec<u8>> {
    let each = |rank: Rank| {
        let comm = rank.comm.clone();
        train(options, Split::new(rank, layout), &mut |event| match event {
            Event::Step(metric, _) if metric.step == dies && comm.rank() == 1 => comm.abort("was killed"),
            _ => {}
        })
    };
    on_ranks(ranks, each).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(std::fs::read(options.out.join("adapter_model.safetensors")).unwrap())
}

#[test]
fn a_run_resumes_under_another_layout_to_the_same_bytes() {
    let options = |folder: &Path| {
        let options = common::prepare(folder);
        TrainOptions { batch: 5, micro_batch: 1, epochs: 2, save_every: 2, validate_every: 2, ..options }
    };
    let folder = tempfile::tempdir().unwrap();
    let expected = trained(&options(folder.path()), 1, Layout::Replicate, usize::MAX).unwrap();
    for [before, after] in
        [[(2, Layout::Replicate), (3, Layout::Shard)], [(2, Layout::Shard), (1, Layout::Shard)]]
    {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        let killed = trained(&options, before.0, before.1, 3).unwrap_err().to_string();
        assert!(killed.contains("rank 1: was killed"), "{killed}");
        let options = TrainOptions { resume: true, ..options };
        assert!(trained(&options, after.0, after.1, usize::MAX).unwrap() == expected, "{before:?} {after:?}");
    }
}

#[test]
fn full_training_has_nothing_to_shard() {
    let world = World::new(false, 1);
    for rank in on_ranks(2, |rank| Learner::new(sharded(rank), &world.options, &world.base, None).map(drop)) {
        let message = rank.unwrap_err().to_string();
        assert!(message.contains("full training has none: use --layout replicate"), "{message}");
    }
}

/// Two cards of 40 GB train Code Llama 13B: with half of the weights each, more layers keep what backward needs.
#[test]
fn half_of_the_weights_leaves_room_for_what_layers_keep() {
    let base = Checkpoint::sketch(synthetic::config("code-llama-13b").unwrap(), safetensors::Dtype::BF16);
    let adapter = Adapter::sized(&Device::plan(), base.config(), 16, 32.0, 0.05, &Linear::ALL).unwrap();
    let options = TrainOptions::default();
    let device = Device::plan_card(Properties::a100());
    let plan = |layout| {
        let budget = Some(usable(40_000_000_000));
        let (device, options, base) = (&device, &options, &base);
        let adapter = Some(&adapter);
        Planner { device, options, base, adapter, rank: 0, world: 2, layout, budget }.largest_rank().unwrap()
    };
    let (replicas, shards) = (plan(Layout::Replicate), plan(Layout::Shard));
    let stops = stops(base.config(), 2, DType::BF16);
    let half = stops.iter().sum::<usize>() / 2;
    let most = half + 2 * stops[1] + (64 << 20); // norms, and the rotary table
    assert!((half..most).contains(&shards.usage.of(Label::Weights)), "{shards}");
    assert!(shards.fits() && shards.recompute < replicas.recompute, "{shards}\n{replicas}");
}
