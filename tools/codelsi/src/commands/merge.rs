//! `codelsi merge`: folds an adapter into its base, and checks that the merged model says the same.

use crate::args::ModelArgs;
use clap::Args;
use codelsi_engine::{At, Ctx, DType, Error, Result};
use codelsi_experiment::loaded::Loaded;
use codelsi_experiment::output::Output;
use codelsi_kernels::check::value;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{Batch, ForwardOptions};
use codelsi_model::merge::merge;
use serde_json::json;
use std::path::{Path, PathBuf};

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

/// Text whose logits are compared.
const PROBE: &str =
    "export function sum(values: number[]): number {\n  return values.reduce((a, b) => a + b, 0);\n}\n";

/// Runs the command.
pub fn run(args: &Merge, out: &Output) -> Result<()> {
    let base = Checkpoint::open(&args.model.model)?;
    let adapter = Adapter::load(&args.adapter, base.config())?;
    adapter.settings.method.check_mergeable().at(args.adapter.display().to_string())?;
    let compute = args.model.place.compute.map(Into::into);
    let open = |folder: &Path, adapter: Option<&Path>| {
        Loaded::open(folder, &args.model.place.device.open()?, compute, adapter)
    };
    let adapted = open(&args.model.model, Some(&args.adapter))?;
    let mut bar = None;
    merge(&adapted.checkpoint, &adapter, &args.out, &mut |done, total| {
        bar.get_or_insert_with(|| out.bar("merge", total >> 20)).at(done >> 20, "MiB");
    })?;
    bar.iter().for_each(|bar| bar.finish());
    let merged = open(&args.out, None)?;
    let difference = difference(&adapted, &merged)?;
    // Merging rounds W + s B A once to the stored type; f32 leaves only the order of sums.
    let limit = if merged.checkpoint.dtype() == DType::F32 { 1e-4 } else { 5e-2 };
    if difference.is_nan() || difference > limit {
        return Err(Error::new(format!(
            "{}: merged logits differ from base + adapter by {difference:.1e} (limit {limit:.0e}); do not use it",
            args.out.display()
        )));
    }
    if !args.json {
        println!(
            "{}: logits differ from base + adapter by {difference:.1e} (limit {limit:.0e})",
            args.out.display()
        );
    }
    out.json(args.json, &json!({ "out": args.out, "logits_rel_l2": difference, "limit": limit }));
    Ok(())
}

/// ‖merged − adapted‖ / ‖adapted‖ over the logits of the probe.
fn difference(adapted: &Loaded, merged: &Loaded) -> Result<f64> {
    let ids = adapted.tokenizer.encode(PROBE, true)?;
    let logits = |loaded: &Loaded| -> Result<Vec<f64>> {
        let cx = Ctx::inference(loaded.device());
        let batch = Batch::new(loaded.device(), &[&ids])?;
        let h = loaded.model.forward(&cx, &batch, ForwardOptions::default())?;
        let normed = loaded.model.normed(&cx, &h)?;
        Ok(value(&loaded.model.logits(&cx, &normed)?)?.data)
    };
    let (a, b) = (logits(adapted)?, logits(merged)?);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    Ok(norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied()))
}
