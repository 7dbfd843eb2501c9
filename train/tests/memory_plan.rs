//! The memory plan equals the accounts of the run and of the software GPU, to the byte.

use codelsi_engine::memory::Usage;
use codelsi_engine::{DType, Device, Label};
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use codelsi_testing::or_skip;
use codelsi_train::TrainOptions;
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::{Planner, StepPlan, plan_generation};
use codelsi_train::train_step::TrainStep;
use tempfile::TempDir;

/// A software GPU, if there is an NVRTC.
fn software_gpu() -> Option<Device> {
    or_skip(Device::emulated("sm_80"))
}

fn config(layers: usize, kv_heads: usize, tied: bool) -> ModelConfig {
    ModelConfig {
        hidden: 32,
        intermediate: 48,
        heads: 4,
        kv_heads,
        head_dim: 8,
        layers,
        tied_embeddings: tied,
        vocab: 64,
        ..tiny()
    }
}

fn tiny() -> ModelConfig {
    ModelConfig { max_positions: 64, ..synthetic::config("tiny").unwrap() }
}

fn model(config: &ModelConfig) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    synthetic::write_random_model(&folder.path().join("m"), config, 1, &mut |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(folder.path().join("m")).unwrap();
    (folder, checkpoint)
}

/// A sequence with a loss on all but the first few tokens.
fn sequence(tokens: usize) -> PackedSequence {
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| 3 + i * 37 % 60).collect();
    let targets = (0..tokens.len()).map(|i| if i < 4 { -100 } else { tokens[i] as i32 }).collect();
    PackedSequence::concat([&Document { tokens, targets }])
}

fn at_peak(usage: Usage) -> (usize, [usize; Label::ALL.len()]) {
    (usage.peak, usage.at_peak)
}

/// The memory of a step: planned, and run on `device`.
fn step(
    device: &Device,
    base: &Checkpoint,
    options: &TrainOptions,
    micro_batches: &[PackedSequence],
) -> [Usage; 2] {
    let adapter = Adapter::init(base, &options.adapter_settings(), 1).unwrap();
    let adapter = (!options.full).then_some(&adapter);
    let planner = Planner {
        device,
        options,
        base,
        adapter,
        rank: 0,
        world: 1,
        layout: Layout::Replicate,
        budget: None,
    };
    let planned = planner.plan_step(micro_batches).unwrap().usage;
    let teacher = adapter.filter(|_| options.distill > 0.0);
    let train_step = TrainStep::new(device, options, base, adapter).unwrap();
    let mut train_step = train_step.with_teacher(teacher).unwrap();
    train_step.run(micro_batches, 1e-3).unwrap();
    [planned, device.ledger().usage()]
}

#[test]
fn the_plan_of_a_step_equals_the_accounts_of_the_software_gpu() {
    for (layers, kv_heads, tied, recompute, compute, full) in [
        (1, 4, false, 0, DType::BF16, false),
        (3, 2, false, 1, DType::BF16, false),
        (3, 1, true, 3, DType::F32, false),
        (2, 4, true, 0, DType::F32, true),
        (2, 2, false, 2, DType::BF16, true),
    ] {
        let what = format!("{layers} layers, {recompute} recomputed, tied: {tied}, full: {full}");
        let options = TrainOptions { full, ..options(recompute, compute) };
        assert_plan_equals_run(&config(layers, kv_heads, tied), &options, &what);
    }
    for (recompute, compute, full) in
        [(0, DType::BF16, false), (1, DType::F32, false), (0, DType::BF16, true), (2, DType::F32, true)]
    {
        let biased = ModelConfig { attention_bias: true, mlp_bias: true, ..config(2, 2, false) };
        let options = TrainOptions { full, ..options(recompute, compute) };
        assert_plan_equals_run(&biased, &options, &format!("biases, {compute:?}, full: {full}"));
    }
    for (method, recompute, compute) in [
        (DORA, 0, DType::BF16),
        (DORA, 1, DType::F32),
        (MIXTURE, 0, DType::BF16),
        (MIXTURE, 2, DType::F32),
        (Method::Bottleneck, 0, DType::BF16),
        (Method::Bottleneck, 1, DType::F32),
    ] {
        let options = TrainOptions { method, ..options(recompute, compute) };
        assert_plan_equals_run(&config(2, 2, false), &options, &format!("{method}, {compute:?}"));
    }
    for (tied, recompute, compute) in [(false, 0, DType::BF16), (true, 1, DType::F32)] {
        let options = TrainOptions { modules_to_save: both_ends(), ..options(recompute, compute) };
        assert_plan_equals_run(&config(2, 2, tied), &options, &format!("embedding and head, {compute:?}"));
    }
}

/// The embedding and the head, trained beside an adapter.
fn both_ends() -> Vec<String> {
    vec!["embed_tokens".into(), "lm_head".into()]
}

const DORA: Method = Method::LowRank { rslora: false, dora: true };
const MIXTURE: Method = Method::Mixture { experts: 3 };

fn options(recompute: usize, compute: DType) -> TrainOptions {
    let checkpointing = ActivationCheckpointing::Layers(recompute);
    TrainOptions { checkpointing, compute, rank: 4, dropout: 0.1, ..TrainOptions::default() }
}

fn assert_plan_equals_run(config: &ModelConfig, options: &TrainOptions, what: &str) {
    assert_plan_of_micro_batches_equals_run(
        config,
        options,
        &[sequence(24), sequence(24), sequence(24)],
        what,
    );
}

fn assert_plan_of_micro_batches_equals_run(
    config: &ModelConfig,
    options: &TrainOptions,
    micro_batches: &[PackedSequence],
    what: &str,
) {
    let Some(device) = software_gpu() else { return };
    let (_folder, base) = model(config);
    let [planned, run] = step(&device, &base, options, micro_batches);
    assert_eq!(at_peak(planned), at_peak(run), "{what}");
    let Device::Cuda(cuda) = &device else { unreachable!("a software GPU") };
    assert_eq!(cuda.emulator().unwrap().peak_bytes(), planned.peak, "bytes allocated by the software GPU");
    assert!(planned.at_peak_of(Label::Saved) > 0 && planned.at_peak_of(Label::Moments) > 0);
}

/// The teacher shares the weights; its adapter and its hidden states are planned.
#[test]
fn the_plan_of_a_distilling_step_equals_the_accounts_of_the_software_gpu() {
    let soft = |mut sequence: PackedSequence| {
        std::mem::swap(&mut sequence.targets, &mut sequence.soft_targets);
        sequence
    };
    let micro_batches = [sequence(24), soft(sequence(24)), sequence(24).with_both_losses()];
    for (method, recompute, compute) in
        [(Method::LORA, 0, DType::BF16), (Method::LORA, 1, DType::F32), (DORA, 2, DType::BF16)]
    {
        let options = TrainOptions { method, distill: 0.5, ..options(recompute, compute) };
        let config = config(2, 2, false);
        assert_plan_of_micro_batches_equals_run(&config, &options, &micro_batches, &format!("{method}"));
    }
    // No micro-batch takes more than one of both losses.
    let Some(device) = software_gpu() else { return };
    let (_folder, base) = model(&config(2, 2, false));
    let options = TrainOptions { distill: 0.5, ..options(0, DType::F32) };
    let peaks = micro_batches.map(|micro_batch| step(&device, &base, &options, &[micro_batch])[0].peak);
    assert!(peaks[2] >= peaks[1] && peaks[1] > peaks[0], "{peaks:?}");
    let weights = |distill| {
        let options = TrainOptions { distill, ..options.clone() };
        step(&software_gpu().unwrap(), &base, &options, &[sequence(24)])[1].at_peak_of(Label::Weights)
    };
    assert_eq!(weights(0.5), weights(0.0));
}

#[test]
fn the_plan_of_a_generation_equals_the_accounts_of_the_software_gpu() {
    if software_gpu().is_none() {
        return;
    }
    let (_folder, base) = model(&config(2, 2, false));
    let request = |tokens: u32, n| GenerationRequest {
        n,
        stop_at_eos: false,
        ..GenerationRequest::greedy((0..tokens).map(|i| 3 + i % 60).collect(), 5)
    };
    let requests = [request(21, 2), request(9, 2), request(21, 2)];
    let limits =
        SchedulerConfig { max_sequences: 4, prefill_chunk: 8, page_size: 4, ..SchedulerConfig::default() };
    let methods = [None, Some(Method::LORA), Some(DORA), Some(MIXTURE), Some(Method::Bottleneck)];
    let cases =
        methods.map(|method| (method, Vec::new())).into_iter().chain([(Some(Method::LORA), both_ends())]);
    for (method, modules_to_save) in cases {
        let device = software_gpu().unwrap();
        let of = |method| TrainOptions { method, modules_to_save, ..options(0, DType::BF16) };
        let settings = method.map(|method| of(method).adapter_settings());
        let adapter = settings.map(|settings| Adapter::init(&base, &settings, 1).unwrap());
        let split = RankLayout::from(&device);
        let planned =
            plan_generation(&split, &base, DType::BF16, adapter.as_ref(), &requests, limits).unwrap();
        let mut model = Llama::load(&device, &base, DType::BF16, Trainable::Nothing).unwrap();
        adapter.iter().for_each(|adapter| model.attach(adapter, Trainable::Nothing).unwrap());
        generate(&device, &model, None, &requests, limits, &mut |_| {}).unwrap();
        assert_eq!(at_peak(planned), at_peak(device.ledger().usage()), "{method:?}");
        assert!(planned.at_peak_of(Label::Kv) > 0 && planned.at_peak_of(Label::Graphs) > 0);
    }
}

/// The out-of-memory error lists the memory by label and the flags that would help.
#[test]
fn an_out_of_memory_error_says_which_flags_help() {
    let Some(device) = software_gpu() else { return };
    let Device::Cuda(cuda) = &device else { unreachable!("a software GPU") };
    let (_folder, base) = model(&config(2, 2, false));
    let adapter = Adapter::init_lora(base.config(), 4, 8.0, 0.1, &LinearName::ALL, 1).unwrap();
    let options = TrainOptions {
        checkpointing: ActivationCheckpointing::Layers(1),
        compute: DType::BF16,
        ..TrainOptions::default()
    };
    let planner = Planner {
        device: &device,
        options: &options,
        base: &base,
        adapter: Some(&adapter),
        rank: 0,
        world: 1,
        layout: Layout::Replicate,
        budget: Some(0),
    };
    let plan = planner.plan_step(&[sequence(24)]).unwrap();
    cuda.emulator().unwrap().set_memory(plan.usage.peak - 1);
    let mut train_step = TrainStep::new(&device, &options, &base, Some(&adapter)).unwrap();
    let error = train_step.run(&[sequence(24)], 1e-3).unwrap_err();
    let message = plan.advise_if_out_of_memory(error, &options).to_string();
    for part in ["step 1: ", "out of memory", "weights", "saved", "--checkpointing all", "--seq 4096"] {
        assert!(message.contains(part) && !message.contains('\n'), "{part}: {message}");
    }
    drop(train_step);
    let refusal = plan.ensure_fits(&device, &options).unwrap_err().to_string();
    assert!(refusal.contains("DOES NOT FIT") && refusal.contains("lower --seq"), "{refusal}");
    let ranks = |world, layout, full| {
        let options = TrainOptions { full, ..options.clone() };
        StepPlan { world, layout, ..plan.clone() }.advice(&options)
    };
    assert!(
        ranks(1, Layout::Replicate, false)
            .ends_with(", or spread the weights over cards with --ranks 2 --layout shard")
    );
    assert!(ranks(2, Layout::Replicate, false).ends_with("over cards with --layout shard"));
    for spread in [ranks(2, Layout::Shard, false), ranks(2, Layout::Replicate, true)] {
        assert!(spread.ends_with("--seq 4096"), "{spread}");
    }
    cuda.emulator().unwrap().set_memory(plan.usage.peak);
    let mut train_step = TrainStep::new(&device, &options, &base, Some(&adapter)).unwrap();
    train_step.run(&[sequence(24)], 1e-3).unwrap();
}

/// Memory grows as fewer layers are recomputed; the search takes the fewest that fit.
#[test]
fn the_fewest_layers_that_fit_are_recomputed() {
    let base = Checkpoint::shapes_only(config(6, 4, false), safetensors::Dtype::BF16);
    let adapter =
        Adapter::allocate_lora(&Device::plan(), base.config(), 4, 8.0, 0.1, &LinearName::ALL).unwrap();
    let options = TrainOptions { seq: 32, batch: 8, micro_batch: 2, ..TrainOptions::default() };
    let device = Device::plan_card(codelsi_engine::cuda::DeviceProperties::a100());
    let plan = |checkpointing, budget| {
        let options = TrainOptions { checkpointing, ..options.clone() };
        let planner = Planner {
            device: &device,
            options: &options,
            base: &base,
            adapter: Some(&adapter),
            rank: 0,
            world: 1,
            layout: Layout::Replicate,
            budget,
        };
        planner.plan_full_step().unwrap()
    };
    let peaks: Vec<usize> =
        (0..7).map(|n| plan(ActivationCheckpointing::Layers(n), None).usage.peak).collect();
    assert!(peaks.is_sorted_by(|a, b| a >= b) && peaks[0] > peaks[6], "{peaks:?}");
    for (n, &peak) in peaks.iter().enumerate() {
        let chosen = plan(ActivationCheckpointing::Auto, Some(peak));
        assert_eq!((chosen.usage.peak, chosen.fits()), (peak, true));
        assert_eq!(peaks[..n].iter().filter(|&&larger| larger > peak).count(), chosen.recompute);
    }
    let tight = plan(ActivationCheckpointing::Auto, Some(peaks[6] - 1));
    assert!(!tight.fits() && tight.recompute == 6);
    let [keeping, recomputing] = tight.max_micro_batches.unwrap();
    assert!(keeping <= recomputing && recomputing < 2, "{keeping} {recomputing}");
    let roomy = plan(ActivationCheckpointing::Auto, Some(1 << 40)).max_micro_batches.unwrap();
    assert_eq!(roomy, [8, 8]);
}

/// Ranks hold different numbers of partial gradient sums; the plan for all ranks is that of the rank with most memory.
#[test]
fn the_plan_of_all_ranks_is_the_largest() {
    let base = Checkpoint::shapes_only(config(6, 4, false), safetensors::Dtype::BF16);
    let adapter =
        Adapter::allocate_lora(&Device::plan(), base.config(), 16, 8.0, 0.1, &LinearName::ALL).unwrap();
    let device = Device::plan_card(codelsi_engine::cuda::DeviceProperties::a100());
    let options = TrainOptions { seq: 32, batch: 7, micro_batch: 1, ..TrainOptions::default() };
    let plan = |checkpointing, world: usize, rank: Option<usize>, budget| {
        let options = TrainOptions { checkpointing, ..options.clone() };
        let planner = Planner {
            device: &device,
            options: &options,
            base: &base,
            adapter: Some(&adapter),
            rank: rank.unwrap_or(0),
            world,
            layout: Layout::Replicate,
            budget,
        };
        if rank.is_some() { planner.plan_full_step() } else { planner.plan_largest_rank() }.unwrap()
    };
    for world in [1, 2, 9] {
        let each = |n| -> Vec<usize> {
            let layers = ActivationCheckpointing::Layers(n);
            (0..world).map(|rank| plan(layers, world, Some(rank), None).usage.peak).collect()
        };
        let (keeping, some) = (each(0), each(3));
        assert!(world == 1 || keeping.iter().min() < keeping.iter().max(), "{keeping:?}");
        let all = plan(ActivationCheckpointing::Layers(0), world, None, None);
        assert_eq!(Some(&all.usage.peak), keeping.iter().max());
        // The budget is what the largest rank needs with three layers recomputed; all ranks recompute the same number.
        let budget = some.iter().max().copied();
        let common = plan(ActivationCheckpointing::Auto, world, None, budget);
        assert!(common.fits() && common.usage.peak == each(common.recompute).into_iter().max().unwrap());
    }
}
