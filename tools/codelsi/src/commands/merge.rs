//! `codelsi merge`: folds an adapter into its base, and checks that the merged model says the same.

use crate::args::ModelArgs;
use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::merging::{Merged, merge_and_check};
use codelsi_experiment::output::Output;
use serde_json::json;
use std::path::PathBuf;

/// Write base + adapter as a model of its own.
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter folder (PEFT).
    #[arg(long)]
    adapter: PathBuf,
    /// Folder for the merged model.
    #[arg(long)]
    out: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Merge, out: &Output) -> Result<()> {
    let place = args.model.place;
    let (device, compute) = (place.device.open()?, place.compute.map(Into::into));
    let merged = merge_and_check(&args.model.model, &args.adapter, &args.out, &device, compute, out)?;
    let Merged { difference, limit } = merged;
    if !args.json {
        println!(
            "{}: logits differ from base + adapter by {difference:.1e} (limit {limit:.0e})",
            args.out.display()
        );
    }
    out.json(args.json, &json!({ "out": args.out, "logits_rel_l2": difference, "limit": limit }));
    Ok(())
}
