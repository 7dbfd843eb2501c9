//! Throughput of prefill, decode and LoRA training on random tokens, against the device's roof and the memory plan.

use crate::placement::Placement;
use codelsi_engine::op_times::{self, OpTimes};
use codelsi_engine::{DType, Device, Error, Label, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::RankLayout;
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use codelsi_train::TrainOptions;
use codelsi_train::flops::{attention_flops, linear_flops, step_flops};
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::{Planner, memory_budget, plan_generation};
use codelsi_train::train_step::TrainStep;
use std::path::PathBuf;
use std::time::Instant;

/// Workloads of a throughput benchmark.
pub struct BenchOptions {
    pub model: BenchModel,
    /// Prompt tokens; 0 skips prefill.
    pub prefill: usize,
    /// Tokens to decode one by one; 0 skips decode.
    pub decode: usize,
    /// Record a decode step as a CUDA graph and replay it, instead of launching every kernel separately.
    pub cuda_graphs: bool,
    /// Sequence length of a LoRA training step, with one sequence per data-parallel rank; 0 skips training.
    pub train: usize,
    /// Layers that are recomputed in backward.
    pub checkpointing: ActivationCheckpointing,
    /// Dropout probability of the adapter's inputs in the training step.
    pub dropout: f32,
    /// Repetitions of each workload; the figures are medians.
    pub repeat: usize,
    /// Run each workload once more and time its ops.
    pub profile: bool,
}

/// The model of a throughput benchmark.
pub enum BenchModel {
    /// A model folder.
    Folder(PathBuf),
    /// A built-in shape with random weights, made on the device; with as many layers as stated, or its own.
    Random { shape: String, layers: Option<usize> },
}

impl BenchModel {
    /// Opens the model.
    ///
    /// # Errors
    /// When the folder is broken, there is no such shape, or the shape has fewer layers.
    pub(crate) fn open(&self) -> Result<Checkpoint> {
        let (shape, layers) = match self {
            BenchModel::Folder(folder) => return Checkpoint::open(folder),
            BenchModel::Random { shape, layers } => (shape, layers),
        };
        let mut config = synthetic::config(shape)?;
        if let Some(layers) = *layers {
            if layers > config.layers {
                return Err(Error::new(format!("{shape} has {} layers, not {layers}", config.layers)));
            }
            config.layers = layers;
        }
        Ok(Checkpoint::random(config, 42))
    }
}

/// Result of a throughput benchmark.
pub struct Throughput {
    /// Rate of loading in GB/s, if weights are copied to the device.
    pub load_gb_per_s: Option<f64>,
    pub workloads: Vec<WorkloadThroughput>,
}

/// Measured throughput of one workload.
pub struct WorkloadThroughput {
    pub name: &'static str,
    /// Tokens per second of the median run, and of the slowest and the fastest.
    pub tokens_per_s: f64,
    pub spread: [f64; 2],
    /// Timed runs.
    pub runs: usize,
    /// Tokens per second at the roof that bounds the workload: arithmetic in prefill and training, memory bandwidth in
    /// decode. `None` where none can be measured.
    pub roof_tokens_per_s: Option<f64>,
    /// Peak memory in bytes.
    pub peak_bytes: usize,
    /// Planned peak memory in bytes.
    pub planned_bytes: usize,
    /// Seconds of a run whose ops were timed, and their times, if that was asked for.
    pub profile: Option<(f64, OpTimes)>,
}

impl WorkloadThroughput {
    /// Returns the share of the roof that bounds the workload; `None` without a roof or above it ([`roof::share`]).
    pub fn roof_share(&self) -> Option<f64> {
        self.roof_tokens_per_s.and_then(|roof| roof::share(self.tokens_per_s, roof))
    }

    /// Shows the share of the roof, where one was measured.
    pub fn roof_text(&self) -> Option<String> {
        self.roof_tokens_per_s.map(|_| roof::share_text(self.roof_share()))
    }
}

/// Times a model on every rank and returns rank 0's result, or `None` in the process of another rank. With several
/// replicas, prefill and decode are those of rank 0's replica; training, and a model that ranks share, count all ranks.
///
/// # Errors
/// When the model does not load or fit.
pub fn measure(options: &BenchOptions, placement: Placement) -> Result<Option<Throughput>> {
    placement.run(|rank_layout| {
        let base = options.model.open()?;
        let packing = placement.pack_weights.decide(&base, &rank_layout);
        if rank_layout.comm().rank() == 0 {
            packing.line().iter().for_each(|line| eprintln!("{line}"));
        }
        let base = base.with_packing(packing.packed);
        let compute = placement.compute(&base);
        let mut measured = Vec::new();
        let load_gb_per_s = inference(options, &rank_layout, &base, compute, &mut measured)?;
        if options.train > 0 {
            measured.push(training(options, &rank_layout, &base, compute)?);
        }
        Ok(Throughput { load_gb_per_s, workloads: measured })
    })
}

/// Times loading, prefill and decode, and returns the rate of loading.
fn inference(
    options: &BenchOptions,
    rank_layout: &RankLayout,
    base: &Checkpoint,
    compute: DType,
    measured: &mut Vec<WorkloadThroughput>,
) -> Result<Option<f64>> {
    let device = rank_layout.device();
    let started = Instant::now();
    let model = Llama::load(rank_layout.clone(), base, compute, Trainable::Nothing)?;
    let seconds = started.elapsed().as_secs_f64();
    let loaded = device.ledger().usage().now[Label::Weights as usize];
    let copied = matches!(device, Device::Cuda(_)).then(|| loaded as f64 / seconds / 1e9);
    let config = base.config();
    // Tensor-parallel ranks each compute a part of the same batch.
    let parts = rank_layout.tensor_parallel_comm().world() as f64;
    let prefill_at_roof = || {
        let work = linear_flops(config) * options.prefill as f64 + attention_flops(config, options.prefill);
        Ok(roof::flops(device, compute)?.map(|roof| work / parts / roof))
    };
    let decode_at_roof = || {
        // Every token reads all weights except the embedding.
        let weights = base.byte_len() as f64 * (1.0 - embedding_share(config));
        Ok(roof::read_bytes(device)?.map(|roof| options.decode as f64 * weights / parts / roof))
    };
    let mut time = |name, prompt: usize, max_tokens: usize, tokens: usize, seconds_at_roof: SecondsAtRoof| {
        let request = GenerationRequest {
            stop_at_eos: false,
            ..GenerationRequest::greedy(random_tokens(config, prompt), max_tokens)
        };
        let scheduler = SchedulerConfig {
            prefill_chunk: prompt,
            cuda_graphs: options.cuda_graphs,
            ..SchedulerConfig::default()
        };
        let requests = [request];
        let planned = plan_generation(rank_layout, base, compute, None, &requests, scheduler)?.peak;
        let run = || generate(device, &model, None, &requests, scheduler, &mut |_| {}).map(drop);
        measured.push(time_workload(
            Workload { name, tokens, seconds_at_roof, planned },
            options,
            device,
            run,
        )?);
        Ok::<(), Error>(())
    };
    if options.prefill > 0 {
        time("prefill", options.prefill, 1, options.prefill, &prefill_at_roof)?;
    }
    if options.decode > 0 {
        time("decode", 1, options.decode, options.decode, &decode_at_roof)?;
    }
    Ok(copied)
}

/// Times a training step (forward, backward, AdamW) of a LoRA of rank 16 on all seven linears.
fn training(
    bench: &BenchOptions,
    rank_layout: &RankLayout,
    base: &Checkpoint,
    compute: DType,
) -> Result<WorkloadThroughput> {
    let (config, device, world) = (base.config(), rank_layout.device(), rank_layout.comm().world());
    // Tensor-parallel ranks run the same micro-batch.
    let batch = rank_layout.data_parallel_comm().world();
    let options = TrainOptions {
        seq: bench.train,
        batch,
        micro_batch: 1,
        compute,
        dropout: bench.dropout,
        checkpointing: bench.checkpointing,
        ..TrainOptions::default()
    };
    options.check(config.max_positions)?;
    let adapter =
        Adapter::init_lora(config, options.rank, options.alpha, options.dropout, &LinearName::ALL, 42)?;
    let tokens = random_tokens(config, bench.train);
    let targets = tokens[1..].iter().map(|&t| t as i32).chain([-100]).collect();
    let micro_batches = vec![PackedSequence::concat([&Document { tokens, targets }]); batch];
    let planner = Planner {
        device,
        options: &options,
        base,
        adapter: Some(&adapter),
        rank: rank_layout.comm().rank(),
        world,
        layout: rank_layout.layout(),
        budget: memory_budget(device, base, world),
    };
    let plan = planner.plan_step(&micro_batches)?;
    plan.ensure_fits(device, &options)?;
    let options =
        TrainOptions { checkpointing: ActivationCheckpointing::Layers(plan.recompute), ..options.clone() };
    let explain = |e| plan.advise_if_out_of_memory(e, &options);
    let mut train_step =
        TrainStep::new(rank_layout.clone(), &options, base, Some(&adapter)).map_err(explain)?;
    let rank_flops = step_flops(config, &micro_batches, false) / world as f64;
    let seconds_at_roof = || Ok(roof::flops(device, compute)?.map(|roof| rank_flops / roof));
    let tokens = bench.train * batch;
    let workload =
        Workload { name: "train", tokens, seconds_at_roof: &seconds_at_roof, planned: plan.usage.peak };
    time_workload(workload, bench, device, || train_step.run(&micro_batches, 1e-4).map(drop).map_err(explain))
}

/// Measures the device's roof, and returns the seconds that a run takes at it.
type SecondsAtRoof<'a> = &'a dyn Fn() -> Result<Option<f64>>;

/// A workload to time.
struct Workload<'a> {
    name: &'static str,
    /// Tokens of one run.
    tokens: usize,
    seconds_at_roof: SecondsAtRoof<'a>,
    /// Planned peak memory in bytes.
    planned: usize,
}

/// Times runs of a workload after a warm-up run, and returns the throughput of the median. The roof is measured before and
/// after, since clock frequencies vary, and the higher one counts.
fn time_workload(
    workload: Workload,
    options: &BenchOptions,
    device: &Device,
    mut run: impl FnMut() -> Result<()>,
) -> Result<WorkloadThroughput> {
    let mut timed_run = || {
        let started = Instant::now();
        run()?;
        if let Device::Cuda(cuda) = device {
            cuda.synchronize()?;
        }
        Ok::<f64, Error>(started.elapsed().as_secs_f64())
    };
    let before = (workload.seconds_at_roof)()?;
    device.ledger().reset_peak();
    timed_run()?;
    let mut seconds = (0..options.repeat.max(1)).map(|_| timed_run()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    let peak_bytes = device.ledger().usage().peak;
    let after = (workload.seconds_at_roof)()?;
    let profile = options.profile.then(|| {
        let (seconds, times) = op_times::record(timed_run);
        Ok::<_, Error>((seconds?, times))
    });
    let at_roof = before.zip(after).map(|(before, after)| before.min(after));
    let rate = |seconds: f64| workload.tokens as f64 / seconds;
    Ok(WorkloadThroughput {
        name: workload.name,
        tokens_per_s: rate(seconds[seconds.len() / 2]),
        spread: [rate(seconds[seconds.len() - 1]), rate(seconds[0])],
        runs: seconds.len(),
        roof_tokens_per_s: at_roof.map(rate),
        peak_bytes,
        planned_bytes: workload.planned,
        profile: profile.transpose()?,
    })
}

/// Returns `tokens` pseudorandom token ids, none of them special.
fn random_tokens(config: &ModelConfig, tokens: usize) -> Vec<u32> {
    let vocab = config.vocab as u32;
    (0..tokens as u32).map(|i| 3 + i.wrapping_mul(2654435761) % (vocab - 3)).collect()
}

/// Returns the embedding's share of the weights; 0 if it is tied to the output head.
fn embedding_share(config: &ModelConfig) -> f64 {
    match config.tied_embeddings {
        true => 0.0,
        false => (config.vocab * config.hidden) as f64 / config.parameters() as f64,
    }
}
