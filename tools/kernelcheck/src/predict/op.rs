//! The modelled time of one op's kernels.

use super::{Bound, Chip, predict, sampled_launches};
use crate::counters::both_ways;
use crate::specs::{sizes, specs};
use codelsi_engine::{DType, Device, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Blocks of each launch that are executed.
const SAMPLED: u64 = 8;

/// A kernel's launches in a forward and a backward pass.
pub struct PredictedKernel {
    pub kernel: String,
    pub launches: usize,
    /// Modelled seconds of all launches.
    pub seconds: f64,
    /// The slowest resource of the longest launch, and that launch's seconds.
    bound: (Bound, f64),
    /// Tensor-core products, in flops.
    pub flops: f64,
}

/// Models a forward and a backward pass of `op` on `chip`, at the op's first real sizes or at `shape`.
///
/// # Errors
/// When there is no such op, the shape does not fit, or there is no compiler.
pub fn predict_op(chip: &Chip, op: &str, shape: Option<&str>, dtype: DType) -> Result<Vec<PredictedKernel>> {
    let spec = specs(&[op.to_owned()])?[0];
    let sizes = match shape {
        Some(text) => sizes(spec, text)?,
        None => spec.shapes.real[0].to_vec(),
    };
    let device = Device::emulated(&chip.arch)?;
    let case = (spec.shapes.case)(dtype, &sizes);
    let launches = sampled_launches(&device, SAMPLED, || both_ways(&device, &case, dtype))?;
    let mut kernels: BTreeMap<String, PredictedKernel> = BTreeMap::new();
    for launch in &launches {
        let predicted = predict(chip, launch)?;
        let kernel = kernels.entry(launch.kernel.clone()).or_insert_with(|| PredictedKernel {
            kernel: launch.kernel.clone(),
            launches: 0,
            seconds: 0.0,
            bound: (predicted.bound, 0.0),
            flops: 0.0,
        });
        kernel.launches += 1;
        kernel.seconds += predicted.seconds;
        kernel.flops += launch.counters.mma.warps as f64 * super::MMA_FLOPS;
        if predicted.seconds > kernel.bound.1 {
            kernel.bound = (predicted.bound, predicted.seconds);
        }
    }
    Ok(kernels.into_values().collect())
}

/// Returns the table of the kernels, and their sum.
pub fn table(chip: &Chip, kernels: &[PredictedKernel]) -> String {
    let mut text = format!(
        "{}\n{:<20}{:>9}{:>12}{:>10}  {}\n",
        chip.name, "kernel", "launches", "us", "TFLOP/s", "bound"
    );
    for k in kernels {
        let rate = k.flops / k.seconds / 1e12;
        let name = k.bound.0.name();
        text += &format!("{:<20}{:>9}{:>12.1}{rate:>10.1}  {name}\n", k.kernel, k.launches, k.seconds * 1e6);
    }
    let (launches, seconds) = sums(kernels);
    text + &format!("{:<20}{launches:>9}{:>12.1}\n", "all", seconds * 1e6)
}

/// Returns the kernels as JSON.
pub fn object(chip: &Chip, op: &str, kernels: &[PredictedKernel]) -> Value {
    let each = kernels.iter().map(|k| {
        json!({
            "kernel": k.kernel, "launches": k.launches, "seconds": k.seconds, "bound": k.bound.0.name(),
            "mma_flops": k.flops,
        })
    });
    let (launches, seconds) = sums(kernels);
    json!({
        "op": op, "chip": chip.name, "launches": launches, "seconds": seconds,
        "kernels": each.collect::<Vec<_>>(),
    })
}

fn sums(kernels: &[PredictedKernel]) -> (usize, f64) {
    (kernels.iter().map(|k| k.launches).sum(), kernels.iter().map(|k| k.seconds).sum())
}
