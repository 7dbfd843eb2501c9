//! `codelsi mkmodel`: a model folder with random weights in a known shape.

use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::output::Output;
use codelsi_model::synthetic;
use serde_json::json;
use std::path::PathBuf;

/// Make a model with random weights, for benches and memory plans.
#[derive(Args)]
pub struct Mkmodel {
    /// code-llama-13b, code-llama-7b (or 7b), tinyllama-1.1b, 110m or tiny.
    #[arg(long)]
    shape: String,
    /// Folder for the model.
    #[arg(long)]
    out: PathBuf,
    /// Of the random weights.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Mkmodel, out: &Output) -> Result<()> {
    let config = synthetic::config(&args.shape)?;
    let mut bar = None;
    synthetic::write_random_model(&args.out, &config, args.seed, &mut |done, total| {
        bar.get_or_insert_with(|| out.bar("mkmodel", total >> 20)).at(done >> 20, "MiB");
    })?;
    bar.iter().for_each(|bar| bar.finish());
    let parameters = config.parameters();
    if !args.json {
        println!("{}: {parameters} parameters in {}", args.shape, args.out.display());
    }
    out.json(args.json, &json!({ "parameters": parameters, "out": args.out }));
    Ok(())
}
