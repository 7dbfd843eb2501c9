//! Merging of an adapter into its base, and a check that the logits stay the same.

use crate::inference_model::InferenceModel;
use crate::output::Output;
use codelsi_engine::{At, Ctx, DType, Device, Error, Result};
use codelsi_kernels::check::value;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{ForwardOptions, PackedBatch};
use codelsi_model::merge::merge;
use std::path::Path;

/// Text on which logits are compared.
const PROBE: &str =
    "export function sum(values: number[]): number {\n  return values.reduce((a, b) => a + b, 0);\n}\n";

/// Difference of a merged model's logits from those of base + adapter.
pub struct MergeCheck {
    /// Relative L2 difference.
    pub difference: f64,
    pub limit: f64,
}

/// Merges an adapter into its base, writes the model into `to`, and compares the logits of both on `device`, with
/// activations stored as `compute`.
///
/// # Errors
/// When an adapter's method cannot be merged, a file cannot be read or written, or the logits differ by more than
/// rounding.
pub fn merge_and_check(
    base: &Path,
    adapter: &Path,
    to: &Path,
    device: &Device,
    compute: Option<DType>,
    out: &Output,
) -> Result<MergeCheck> {
    let values = Adapter::load(adapter, Checkpoint::open(base)?.config())?;
    values.config.method.check_mergeable().at(adapter.display().to_string())?;
    let adapted = InferenceModel::open(base, device, compute, Some(adapter))?;
    let mut bar = None;
    let mut progress = |done: usize, total: usize| {
        bar.get_or_insert_with(|| out.bar("merge", total >> 20)).update(done >> 20, "MiB");
    };
    // Merging rounds W + s B A once to the stored type; in f32 only the order of sums differs.
    let limit = if adapted.checkpoint.dtype() == DType::F32 { 1e-4 } else { 5e-2 };
    let mut difference = f64::NAN;
    merge(&adapted.checkpoint, &values, to, &mut progress, &mut |folder| {
        let merged = InferenceModel::open(folder, device, compute, None)?;
        difference = logits_difference(&adapted, &merged)?;
        if difference <= limit {
            return Ok(());
        }
        let cause = adapted.checkpoint.first_non_finite().map(|weight| format!("; {weight} in the base"));
        Err(Error::io(
            to,
            format!(
                "nothing is written: merged logits differ from base + adapter by {difference:.1e} (limit {limit:.0e}){}",
                cause.unwrap_or_default()
            ),
        ))
    })?;
    bar.iter().for_each(|bar| bar.finish());
    Ok(MergeCheck { difference, limit })
}

/// Computes ‖merged − adapted‖ / ‖adapted‖ over the logits of the probe text.
fn logits_difference(adapted: &InferenceModel, merged: &InferenceModel) -> Result<f64> {
    let ids = adapted.tokenizer.encode(PROBE, true)?;
    let logits = |loaded: &InferenceModel| -> Result<Vec<f64>> {
        let cx = Ctx::inference(loaded.device());
        let batch = PackedBatch::new(loaded.device(), &[&ids])?;
        let h = loaded.model.forward(&cx, &batch, ForwardOptions::default())?;
        let normed = loaded.model.final_norm(&cx, &h)?;
        Ok(value(&loaded.model.logits(&cx, &normed)?)?.data)
    };
    let (a, b) = (logits(adapted)?, logits(merged)?);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    Ok(norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied()))
}
