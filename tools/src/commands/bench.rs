//! `codelsi bench`: tokens a second, the share of the machine's own roof, and the peak memory of prefill, decode and LoRA
//! training.

use crate::model_args::ModelArgs;
use crate::output::Output;
use crate::ranks::RankArgs;
use clap::Args;
use codelsi_engine::{DType, Device, Error, Label, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{Config, Linear};
use codelsi_model::generate::{Limits, Request, generate};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::Split;
use codelsi_model::trainable::Train;
use codelsi_train::TrainOptions;
use codelsi_train::learner::Learner;
use codelsi_train::options::Checkpointing;
use codelsi_train::pack::{Document, Sequence};
use codelsi_train::plan::{Planner, budget, generation};
use codelsi_train::work::{attention_flops, linear_flops, step_flops};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Measure tokens a second on random tokens.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// Prompt tokens; 0 leaves prefill out.
    #[arg(long, default_value_t = 512)]
    prefill: usize,
    /// Tokens generated one by one; 0 leaves decode out.
    #[arg(long, default_value_t = 64)]
    decode: usize,
    /// Launch every kernel of a decode step by itself, rather than replay a recorded step.
    #[arg(long)]
    no_graphs: bool,
    /// Tokens of a LoRA training step, a sequence of so many on each rank; 0 leaves it out.
    #[arg(long, default_value_t = 512)]
    train: usize,
    /// Layers that run again in backward: auto, all, none, or a number.
    #[arg(long, default_value = "auto")]
    checkpointing: Checkpointing,
    /// Runs of each; the figures are medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// One kind of work, measured.
struct Measured {
    name: &'static str,
    tokens_per_s: f64,
    /// Of the roof that binds it: multiply-adds in prefill and training, memory in decode.
    share: Option<f64>,
    peak: usize,
    planned: usize,
}

/// Runs the command. With several replicas prefill and decode are those of rank 0's; training, and a model that ranks share, is all
/// ranks'.
pub fn run(args: &Bench, out: &Output) -> Result<()> {
    let Some((load, all)) = args.ranks.run(args.model.place.device, |split| measure(args, split))? else {
        return Ok(());
    };
    if !args.json {
        load.iter().for_each(|rate| println!("load    {rate:>10.2} GB/s"));
        all.iter().for_each(|measured| println!("{}", measured.line()));
    }
    let mut object = Map::from_iter([("load_gb_per_s".to_string(), json!(load))]);
    for name in ["prefill", "decode", "train"] {
        object.insert(format!("{name}_tokens_per_s"), Value::Null);
    }
    object.insert("peak_bytes".into(), json!(all.iter().map(|m| m.peak).max()));
    all.iter().for_each(|measured| measured.add_to(&mut object));
    out.json(args.json, &Value::Object(object));
    Ok(())
}

/// The speed of loading in GB/s, where weights are copied; then each kind of work.
fn measure(args: &Bench, split: Split) -> Result<(Option<f64>, Vec<Measured>)> {
    let base = Checkpoint::open(&args.model.model)?;
    let compute = args.model.place.compute(&base);
    let mut all = Vec::new();
    let load = inference(args, &split, &base, compute, &mut all)?;
    if args.train > 0 {
        all.push(training(args, &split, &base, compute)?);
    }
    Ok((load, all))
}

fn inference(
    args: &Bench,
    split: &Split,
    base: &Checkpoint,
    compute: DType,
    all: &mut Vec<Measured>,
) -> Result<Option<f64>> {
    let device = split.device();
    let bytes = if args.decode > 0 { roof::bytes(device)? } else { None };
    let flops = if args.prefill > 0 { roof::flops(device, compute)? } else { None };
    let started = Instant::now();
    let model = Llama::load(split.clone(), base, compute, Train::Nothing)?;
    let seconds = started.elapsed().as_secs_f64();
    let loaded = device.ledger().usage().now[Label::Weights as usize];
    let copied = matches!(device, Device::Cuda(_)).then(|| loaded as f64 / seconds / 1e9);
    let config = base.config();
    // Of one batch, ranks of the tensor layout do a part each.
    let parts = split.within_batch().world() as f64;
    let mut time = |name, prompt: usize, tokens: usize, counted: usize, seconds_at_roof: Option<f64>| {
        let request = Request { stop_at_eos: false, ..Request::greedy(random(config, prompt), tokens) };
        let limits = Limits { prefill: prompt, graphs: !args.no_graphs, ..Limits::default() };
        let requests = [request];
        let planned = generation(split, base, compute, None, &requests, limits)?.peak;
        let run = || generate(device, &model, None, &requests, limits, &mut |_| {}).map(drop);
        all.push(timed(args, device, name, counted, seconds_at_roof, planned, run)?);
        Ok::<(), Error>(())
    };
    if args.prefill > 0 {
        let work = linear_flops(config) * args.prefill as f64 + attention_flops(config, args.prefill);
        time("prefill", args.prefill, 1, args.prefill, flops.map(|roof| work / parts / roof))?;
    }
    if args.decode > 0 {
        // Every token reads every weight but the embedding's.
        let weights = base.byte_len() as f64 * (1.0 - embedding_share(config));
        time(
            "decode",
            1,
            args.decode,
            args.decode,
            bytes.map(|roof| args.decode as f64 * weights / parts / roof),
        )?;
    }
    Ok(copied)
}

/// A LoRA of rank 16 on all seven linears: forward, backward, AdamW.
fn training(args: &Bench, split: &Split, base: &Checkpoint, compute: DType) -> Result<Measured> {
    let (config, device, world) = (base.config(), split.device(), split.comm().world());
    // Under tensor all ranks run the same micro-batch.
    let batch = split.across_batches().world();
    let flops = roof::flops(device, compute)?;
    let options = TrainOptions {
        seq: args.train,
        batch,
        micro_batch: 1,
        compute,
        checkpointing: args.checkpointing,
        ..TrainOptions::default()
    };
    options.check(config.max_positions)?;
    let adapter = Adapter::fresh(config, options.rank, options.alpha, options.dropout, &Linear::ALL, 42)?;
    let tokens = random(config, args.train);
    let targets = tokens[1..].iter().map(|&t| t as i32).chain([-100]).collect();
    let micro_batches = vec![Sequence::of([&Document { tokens, targets }]); batch];
    let planner = Planner {
        device,
        options: &options,
        base,
        adapter: Some(&adapter),
        rank: split.comm().rank(),
        world,
        layout: split.layout(),
        budget: budget(device, base, world),
    };
    let plan = planner.step(&micro_batches)?;
    plan.check(device, &options)?;
    let options = TrainOptions { checkpointing: Checkpointing::Layers(plan.recompute), ..options.clone() };
    let explain = |e| plan.explain(e, &options);
    let mut learner = Learner::new(split.clone(), &options, base, Some(&adapter)).map_err(explain)?;
    let work = step_flops(config, &micro_batches, false) / world as f64;
    let at_roof = flops.map(|roof| work / roof);
    let tokens = args.train * batch;
    timed(args, device, "train", tokens, at_roof, plan.usage.peak, || {
        learner.step(&micro_batches, 1e-4).map(drop).map_err(explain)
    })
}

/// The median of the runs over `tokens` tokens, after one that does not count.
fn timed(
    args: &Bench,
    device: &Device,
    name: &'static str,
    tokens: usize,
    seconds_at_roof: Option<f64>,
    planned: usize,
    mut run: impl FnMut() -> Result<()>,
) -> Result<Measured> {
    device.ledger().reset_peak();
    let mut seconds = Vec::new();
    for _ in 0..=args.repeat.max(1) {
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

impl Measured {
    fn line(&self) -> String {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        let share = self.share.map_or(String::new(), |s| format!(", {:.1} % of the roof", 100.0 * s));
        let (peak, planned) = (mib(self.peak), mib(self.planned));
        let (name, rate) = (self.name, self.tokens_per_s);
        format!("{name:<8}{rate:>10.1} tokens/s{share}, peak {peak:.1} MiB, planned {planned:.1} MiB")
    }

    fn add_to(&self, object: &mut Map<String, Value>) {
        let mut add = |what: &str, value: Value| object.insert(format!("{}_{what}", self.name), value);
        add("tokens_per_s", json!(self.tokens_per_s));
        add("roof_share", json!(self.share));
        add("peak_bytes", json!(self.peak));
        add("planned_bytes", json!(self.planned));
    }
}

fn random(config: &Config, tokens: usize) -> Vec<u32> {
    let vocab = config.vocab as u32;
    (0..tokens as u32).map(|i| 3 + i.wrapping_mul(2654435761) % (vocab - 3)).collect()
}

/// The embedding's share of the weights; none when it is the head as well.
fn embedding_share(config: &Config) -> f64 {
    match config.tied {
        true => 0.0,
        false => (config.vocab * config.hidden) as f64 / config.parameters() as f64,
    }
}
