//! Tokens a second of prefill, decode and LoRA training on random tokens, beside the machine's own roof and the memory plan.

use crate::placement::Placement;
use codelsi_engine::{DType, Device, Error, Label, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{Linear, ModelConfig};
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::RankLayout;
use codelsi_model::trainable::Trainable;
use codelsi_train::TrainOptions;
use codelsi_train::flops::{attention_flops, linear_flops, step_flops};
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::{Planner, memory_budget, plan_generation};
use codelsi_train::train_step::TrainStep;
use std::path::PathBuf;
use std::time::Instant;

/// The work that is timed.
pub struct BenchOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Prompt tokens; 0 leaves prefill out.
    pub prefill: usize,
    /// Tokens generated one by one; 0 leaves decode out.
    pub decode: usize,
    /// Record a decode step and replay it, instead of launching every kernel by itself.
    pub graphs: bool,
    /// Tokens of a LoRA training step, a sequence of so many on each rank; 0 leaves it out.
    pub train: usize,
    /// Layers that run again in backward.
    pub checkpointing: ActivationCheckpointing,
    /// Runs of each; the figures are medians.
    pub repeat: usize,
}

/// Result of a bench.
pub struct Throughput {
    /// Speed of loading, where weights are copied.
    pub load_gb_per_s: Option<f64>,
    pub measured: Vec<Measured>,
}

/// One kind of work, measured.
pub struct Measured {
    pub name: &'static str,
    pub tokens_per_s: f64,
    /// Share of the roof that binds it: multiply-adds in prefill and training, memory in decode.
    pub share: Option<f64>,
    /// Bytes at the peak, and as planned.
    pub peak: usize,
    pub planned: usize,
}

/// Times a model on every rank and returns rank 0's figures; nothing in a process that is another rank. With several
/// replicas prefill and decode are those of rank 0's; training, and a model that ranks share, is all ranks'.
///
/// # Errors
/// When the model does not load or fit.
pub fn measure(options: &BenchOptions, placement: Placement) -> Result<Option<Throughput>> {
    placement.run(|split| {
        let base = Checkpoint::open(&options.model)?;
        let compute = placement.compute(&base);
        let mut measured = Vec::new();
        let load_gb_per_s = inference(options, &split, &base, compute, &mut measured)?;
        if options.train > 0 {
            measured.push(training(options, &split, &base, compute)?);
        }
        Ok(Throughput { load_gb_per_s, measured })
    })
}

fn inference(
    bench: &BenchOptions,
    split: &RankLayout,
    base: &Checkpoint,
    compute: DType,
    all: &mut Vec<Measured>,
) -> Result<Option<f64>> {
    let device = split.device();
    let bytes = if bench.decode > 0 { roof::bytes(device)? } else { None };
    let flops = if bench.prefill > 0 { roof::flops(device, compute)? } else { None };
    let started = Instant::now();
    let model = Llama::load(split.clone(), base, compute, Trainable::Nothing)?;
    let seconds = started.elapsed().as_secs_f64();
    let loaded = device.ledger().usage().now[Label::Weights as usize];
    let copied = matches!(device, Device::Cuda(_)).then(|| loaded as f64 / seconds / 1e9);
    let config = base.config();
    // Of one batch, ranks of the tensor layout do a part each.
    let parts = split.tensor_parallel_comm().world() as f64;
    let mut time = |name, prompt: usize, tokens: usize, counted: usize, seconds_at_roof: Option<f64>| {
        let request = GenerationRequest {
            stop_at_eos: false,
            ..GenerationRequest::greedy(random(config, prompt), tokens)
        };
        let limits = SchedulerConfig {
            prefill_chunk: prompt,
            cuda_graphs: bench.graphs,
            ..SchedulerConfig::default()
        };
        let requests = [request];
        let planned = plan_generation(split, base, compute, None, &requests, limits)?.peak;
        let run = || generate(device, &model, None, &requests, limits, &mut |_| {}).map(drop);
        all.push(timed(bench, device, name, counted, seconds_at_roof, planned, run)?);
        Ok::<(), Error>(())
    };
    if bench.prefill > 0 {
        let work = linear_flops(config) * bench.prefill as f64 + attention_flops(config, bench.prefill);
        time("prefill", bench.prefill, 1, bench.prefill, flops.map(|roof| work / parts / roof))?;
    }
    if bench.decode > 0 {
        // Every token reads every weight but the embedding's.
        let weights = base.byte_len() as f64 * (1.0 - embedding_share(config));
        time(
            "decode",
            1,
            bench.decode,
            bench.decode,
            bytes.map(|roof| bench.decode as f64 * weights / parts / roof),
        )?;
    }
    Ok(copied)
}

/// A LoRA of rank 16 on all seven linears: forward, backward, AdamW.
fn training(bench: &BenchOptions, split: &RankLayout, base: &Checkpoint, compute: DType) -> Result<Measured> {
    let (config, device, world) = (base.config(), split.device(), split.comm().world());
    // Under tensor all ranks run the same micro-batch.
    let batch = split.data_parallel_comm().world();
    let flops = roof::flops(device, compute)?;
    let options = TrainOptions {
        seq: bench.train,
        batch,
        micro_batch: 1,
        compute,
        checkpointing: bench.checkpointing,
        ..TrainOptions::default()
    };
    options.check(config.max_positions)?;
    let adapter = Adapter::init_lora(config, options.rank, options.alpha, options.dropout, &Linear::ALL, 42)?;
    let tokens = random(config, bench.train);
    let targets = tokens[1..].iter().map(|&t| t as i32).chain([-100]).collect();
    let micro_batches = vec![PackedSequence::concat([&Document { tokens, targets }]); batch];
    let planner = Planner {
        device,
        options: &options,
        base,
        adapter: Some(&adapter),
        rank: split.comm().rank(),
        world,
        layout: split.layout(),
        budget: memory_budget(device, base, world),
    };
    let plan = planner.plan_step(&micro_batches)?;
    plan.ensure_fits(device, &options)?;
    let options =
        TrainOptions { checkpointing: ActivationCheckpointing::Layers(plan.recompute), ..options.clone() };
    let explain = |e| plan.advise_if_out_of_memory(e, &options);
    let mut learner = TrainStep::new(split.clone(), &options, base, Some(&adapter)).map_err(explain)?;
    let work = step_flops(config, &micro_batches, false) / world as f64;
    let at_roof = flops.map(|roof| work / roof);
    let tokens = bench.train * batch;
    timed(bench, device, "train", tokens, at_roof, plan.usage.peak, || {
        learner.run(&micro_batches, 1e-4).map(drop).map_err(explain)
    })
}

/// The median of the runs over `tokens` tokens, after one that does not count.
fn timed(
    bench: &BenchOptions,
    device: &Device,
    name: &'static str,
    tokens: usize,
    seconds_at_roof: Option<f64>,
    planned: usize,
    mut run: impl FnMut() -> Result<()>,
) -> Result<Measured> {
    device.ledger().reset_peak();
    let mut seconds = Vec::new();
    for _ in 0..=bench.repeat.max(1) {
        let started = Instant::now();
        run()?;
        if let Device::Cuda(cuda) = device {
            cuda.synchronize()?;
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    Ok(Measured {
        name,
        tokens_per_s: tokens as f64 / median,
        share: seconds_at_roof.map(|least| least / median),
        peak: device.ledger().usage().peak,
        planned,
    })
}

fn random(config: &ModelConfig, tokens: usize) -> Vec<u32> {
    let vocab = config.vocab as u32;
    (0..tokens as u32).map(|i| 3 + i.wrapping_mul(2654435761) % (vocab - 3)).collect()
}

/// The embedding's share of the weights; none when it is the head as well.
fn embedding_share(config: &ModelConfig) -> f64 {
    match config.tied_embeddings {
        true => 0.0,
        false => (config.vocab * config.hidden) as f64 / config.parameters() as f64,
    }
}
