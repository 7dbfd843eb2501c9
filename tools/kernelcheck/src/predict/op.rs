//! The modelled time of one op's kernels.

use super::{Bound, Chip, predict, sampled_launches};
use crate::counters::{Passes, run_passes};
use crate::specs::{sizes, specs};
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::{DType, Device, Result};
use codelsi_kernels::spec::Case;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Blocks of each launch that are executed.
pub const SAMPLED: u64 = 32;
/// Elements of the largest tensors that are drawn: the work of larger ones does not depend on numbers.
pub const DRAWN: usize = 1 << 22;

/// The modelled kernels of an op on a chip.
pub struct PredictedOp {
    pub op: String,
    /// The case's sizes.
    pub shape: String,
    pub dtype: DType,
    pub kernels: Vec<PredictedKernel>,
}

/// A kernel's launches in a forward and a backward pass.
pub struct PredictedKernel {
    pub kernel: String,
    pub launches: usize,
    /// Modelled seconds of all launches, and their seconds at the nearer roof.
    pub seconds: f64,
    pub roof: f64,
    /// The slowest resource of the longest launch, and that launch's seconds.
    bound: (Bound, f64),
    /// Tensor-core products, in flops.
    pub flops: f64,
}

/// Models a forward and a backward pass of `op` on `chip`, at the op's first real sizes or at `shape`.
///
/// # Errors
/// When there is no such op, the shape does not fit, or there is no compiler.
pub fn predict_op(chip: &Chip, op: &str, shape: Option<&str>, dtype: DType) -> Result<PredictedOp> {
    let spec = specs(&[op.to_owned()])?[0];
    let sizes = match shape {
        Some(text) => sizes(spec, text)?,
        None => spec.shapes.real[0].to_vec(),
    };
    let case = (spec.shapes.case)(dtype, &sizes);
    let launches = launches(chip, &case, dtype, Passes::Both, blocks(op, SAMPLED))?;
    Ok(PredictedOp { op: op.to_owned(), shape: case.name, dtype, kernels: kernels(chip, &launches)? })
}

/// Blocks of an op's launches that are executed, of `sampled`: all where the host reads every row's result.
pub fn blocks(op: &str, sampled: u64) -> u64 {
    if op == "sample" { u64::MAX } else { sampled }
}

/// Counts the launches of a case on the software GPU of the chip's architecture.
///
/// # Errors
/// When the op fails, or there is no compiler.
pub fn launches(
    chip: &Chip,
    case: &Case,
    dtype: DType,
    passes: Passes,
    sampled: u64,
) -> Result<Vec<LaunchRecord>> {
    let device = Device::emulated(&chip.arch)?;
    sampled_launches(&device, sampled, || run_passes(&device, case, dtype, passes, DRAWN))
}

/// Models launches and groups them by kernel.
///
/// # Errors
/// When no multiprocessor holds a block.
pub fn kernels(chip: &Chip, launches: &[LaunchRecord]) -> Result<Vec<PredictedKernel>> {
    let mut kernels: BTreeMap<&str, PredictedKernel> = BTreeMap::new();
    for launch in launches {
        let predicted = predict(chip, launch)?;
        let kernel = kernels.entry(&launch.kernel).or_insert_with(|| PredictedKernel {
            kernel: launch.kernel.clone(),
            launches: 0,
            seconds: 0.0,
            roof: 0.0,
            bound: (predicted.bound, 0.0),
            flops: 0.0,
        });
        kernel.launches += 1;
        kernel.seconds += predicted.seconds;
        kernel.roof += predicted.roof;
        kernel.flops += launch.counters.mma.warps as f64 * super::MMA_FLOPS;
        if predicted.seconds > kernel.bound.1 {
            kernel.bound = (predicted.bound, predicted.seconds);
        }
    }
    Ok(kernels.into_values().collect())
}

/// Returns the table of the kernels, and their sum.
pub fn table(chip: &Chip, predicted: &PredictedOp) -> String {
    let PredictedOp { op, shape, dtype, kernels } = predicted;
    let mut text = format!(
        "{op} {shape} {dtype:?}, {}\n{:<20}{:>9}{:>12}{:>10}{:>8}  {}\n",
        chip.name, "kernel", "launches", "us", "TFLOP/s", "roof", "bound"
    );
    for k in kernels {
        let (rate, share, name) = (k.flops / k.seconds / 1e12, 100.0 * k.share(), k.bound());
        let (kernel, launches, us) = (&k.kernel, k.launches, k.seconds * 1e6);
        text += &format!("{kernel:<20}{launches:>9}{us:>12.1}{rate:>10.1}{share:>6.0} %  {name}\n");
    }
    let (launches, seconds) = sum(kernels);
    text + &format!("{:<20}{launches:>9}{:>12.1}\n", "all", seconds * 1e6)
}

/// Returns the kernels as JSON.
pub fn object(chip: &Chip, predicted: &PredictedOp) -> Value {
    let (launches, seconds) = sum(&predicted.kernels);
    json!({
        "op": predicted.op, "shape": predicted.shape, "dtype": format!("{:?}", predicted.dtype),
        "chip": chip.name, "arch": chip.arch, "launches": launches, "seconds": seconds,
        "kernels": rows(chip, predicted),
    })
}

/// Returns an object of each kernel.
pub fn rows(chip: &Chip, predicted: &PredictedOp) -> Vec<Value> {
    let row = |k: &PredictedKernel| {
        json!({
            "op": predicted.op, "shape": predicted.shape, "dtype": format!("{:?}", predicted.dtype),
            "chip": chip.name, "arch": chip.arch, "kernel": k.kernel, "launches": k.launches,
            "seconds": k.seconds, "bound": k.bound(), "mma_flops": k.flops,
            "share_of_roof": k.share(),
        })
    };
    predicted.kernels.iter().map(row).collect()
}

impl PredictedKernel {
    /// Name of the slowest resource of the longest launch.
    pub fn bound(&self) -> &'static str {
        self.bound.0.name()
    }

    /// The time at the nearer roof as a share of the modelled time.
    pub fn share(&self) -> f64 {
        self.roof / self.seconds
    }
}

/// Launches and seconds of all kernels.
pub fn sum(kernels: &[PredictedKernel]) -> (usize, f64) {
    (kernels.iter().map(|k| k.launches).sum(), kernels.iter().map(|k| k.seconds).sum())
}
