//! `codelsi merge`: merges an adapter into its base, and checks the merged model's logits against base + adapter.

use crate::args::{DeviceArgs, ModelArgs, folder, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Result, RunLock};
use codelsi_experiment::merging::{MergeCheck, merge_and_check};
use codelsi_experiment::output::Output;
use serde_json::json;
use std::path::PathBuf;

/// Merge an adapter into its base model, and check the logits.
#[derive(Args)]
pub struct MergeArgs {
    #[arg(long, help = help::ADAPTER, value_name = "DIR", value_parser = folder())]
    adapter: PathBuf,
    /// Folder for the merged model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs the command.
pub fn run(args: &MergeArgs, out: &Output) -> Result<()> {
    let _lock = RunLock::beside(&args.out)?;
    let DeviceArgs { device, compute } = args.model.device;
    let (device, compute) = (device.open()?, compute.map(Into::into));
    let merged = merge_and_check(&args.model.model, &args.adapter, &args.out, &device, compute, out)?;
    let MergeCheck { difference, limit } = merged;
    if !args.json {
        println!(
            "{}: logits differ from base + adapter by {difference:.1e} (limit {limit:.0e})",
            args.out.display()
        );
    }
    print_json(args.json, &json!({ "out": args.out, "logits_rel_l2": difference, "limit": limit }));
    Ok(())
}
