//! `codelsi mkmodel`: writes a model folder with random weights in a built-in shape.

use crate::args::help;
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Result, RunLock};
use codelsi_experiment::output::Output;
use codelsi_model::synthetic;
use serde_json::json;
use std::path::PathBuf;

/// Make a model with random weights, for benches and memory plans.
#[derive(Args)]
pub struct MkmodelArgs {
    #[arg(long, help = help::SHAPE)]
    shape: String,
    /// Folder for the model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, help = help::SEED, default_value_t = 42)]
    seed: u64,
    #[arg(long, help = help::JSON)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &MkmodelArgs, out: &Output) -> Result<()> {
    let config = synthetic::config(&args.shape)?;
    let _lock = RunLock::beside(&args.out)?;
    let mut bar = None;
    synthetic::write_random_model(&args.out, &config, args.seed, &mut |done, total| {
        bar.get_or_insert_with(|| out.bar("mkmodel", total >> 20)).update(done >> 20, "MiB");
    })?;
    bar.iter().for_each(|bar| bar.finish());
    let parameters = config.parameters();
    if !args.json {
        println!("{}: {parameters} parameters in {}", args.shape, args.out.display());
    }
    print_json(args.json, &json!({ "parameters": parameters, "out": args.out }));
    Ok(())
}
