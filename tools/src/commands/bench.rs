//! `codelsi bench`: tokens a second and peak memory of prefill, decode and a LoRA step, on this machine.

use crate::model_args::{Loaded, ModelArgs};
use crate::output::Output;
use clap::Args;
use codelsi_engine::{Ctx, Device, Grads, Label, Result};
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::Linear;
use codelsi_model::generate::{Limits, Request, generate};
use codelsi_model::llama::{Batch, ForwardOptions, Llama, Train};
use codelsi_train::optimizer::{AdamW, Optimizer};
use serde_json::json;
use std::time::Instant;

/// Measure tokens a second on random tokens.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt tokens.
    #[arg(long, default_value_t = 512)]
    prefill: usize,
    /// Tokens generated one by one.
    #[arg(long, default_value_t = 64)]
    decode: usize,
    /// Tokens of a LoRA training step; 0 leaves it out.
    #[arg(long, default_value_t = 512)]
    train: usize,
    /// Runs of each; the figures are medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Bench, out: &Output) -> Result<()> {
    let loaded = Loaded::open(&args.model, None)?;
    let vocab = loaded.checkpoint.config().vocab as u32;
    let tokens = |n: usize| -> Vec<u32> {
        (0..n as u32).map(|i| 3 + i.wrapping_mul(2654435761) % (vocab - 3)).collect()
    };
    let prefill = per_second(args.repeat, args.prefill, || one_forward(&loaded, &tokens(args.prefill)))?;
    let decode = per_second(args.repeat, args.decode, || decode(&loaded, tokens(1), args.decode))?;
    let inference = loaded.device.ledger().usage().peak;
    let device = args.model.place.device.open()?;
    let train = match args.train {
        0 => None,
        n => Some(train(args, &device, &loaded.checkpoint, &tokens(n))?),
    };
    let peak = inference.max(device.ledger().usage().peak);
    if !args.json {
        println!("prefill {prefill:>10.1} tokens/s");
        println!("decode  {decode:>10.1} tokens/s");
        train.iter().for_each(|t| println!("train   {t:>10.1} tokens/s"));
        println!("peak    {:>10.1} MiB beside mapped weights", peak as f64 / (1 << 20) as f64);
    }
    out.json(
        args.json,
        &json!({
            "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode,
            "train_tokens_per_s": train, "peak_bytes": peak,
        }),
    );
    Ok(())
}

/// The median of `repeat` runs over `tokens` tokens each, after one that does not count.
fn per_second(repeat: usize, tokens: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut rates = Vec::new();
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        run()?;
        rates.push(tokens as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

fn one_forward(loaded: &Loaded, tokens: &[u32]) -> Result<()> {
    let request = Request { stop_at_eos: false, ..Request::greedy(tokens.to_vec(), 1) };
    let limits = Limits { prefill: tokens.len(), ..Limits::default() };
    generate(&loaded.device, &loaded.model, None, &[request], limits, &mut |_| {})?;
    Ok(())
}

fn decode(loaded: &Loaded, prompt: Vec<u32>, tokens: usize) -> Result<()> {
    let request = Request { stop_at_eos: false, ..Request::greedy(prompt, tokens) };
    generate(&loaded.device, &loaded.model, None, &[request], Limits::default(), &mut |_| {})?;
    Ok(())
}

/// Forward, backward and AdamW of a rank-16 adapter on all seven linears.
fn train(args: &Bench, device: &Device, checkpoint: &Checkpoint, tokens: &[u32]) -> Result<f64> {
    let mut model = Llama::load(device, checkpoint, args.model.place.compute(checkpoint), Train::Adapters)?;
    let adapter = Adapter::fresh(checkpoint.config(), 16, 32.0, 0.05, &Linear::ALL, 42)?;
    model.attach(device, &adapter, Train::Adapters)?;
    let mut optimizer = Optimizer::new(device, &model, AdamW::default());
    let batch = Batch::new(device, &[tokens])?;
    let mut targets: Vec<i32> = tokens[1..].iter().map(|&t| t as i32).collect();
    targets.push(-100);
    let targets = Targets::new(device, &targets)?;
    let options = ForwardOptions { dropout: 0.05, recompute: 0 };
    per_second(args.repeat, tokens.len(), || {
        let cx = Ctx::training(device, 42, optimizer.step);
        let (loss, _) = model.loss(&cx, &batch, &targets, 1.0 / tokens.len() as f32, options)?;
        let mut grads = Grads::default();
        cx.backward(&loss, device.tensor(Label::Gradients, [1], &[1.0f32])?, &mut grads)?;
        optimizer.step(&Ctx::inference(device), &mut model, grads, 1e-4)?;
        Ok(())
    })
}
