//! `counters`: counts of the software GPU for each kernel of an op, at sizes of Code Llama 13B or given ones.

use crate::specs::{sizes, specs};
use codelsi_emulator::Counters;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Result};
use codelsi_kernels::check::{inputs, random};
use codelsi_kernels::spec::{Case, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The counters of a kernel, summed over its launches.
#[derive(Clone, Debug, Default)]
pub struct KernelCounters {
    pub launches: usize,
    pub sum: Counters,
}

/// Runs `op` forward and backward on the software GPU `device` and counts.
///
/// # Errors
/// When there is no such op, the shape does not fit, or the device is not the software GPU.
pub fn count(
    device: &Device,
    op: &str,
    shape: Option<&str>,
    dtype: DType,
) -> Result<BTreeMap<String, KernelCounters>> {
    let spec = specs(&[op.to_owned()])?[0];
    let sizes = match shape {
        Some(text) => sizes(spec, text)?,
        None => small(spec),
    };
    let Device::Cuda(cuda) = device else {
        return Err(Error::new("the CPU counts nothing: use --device emulated"));
    };
    let Some(emulator) = cuda.emulator() else {
        return Err(Error::new("a card counts nothing here: use --device emulated"));
    };
    emulator.count_launches();
    both_ways(device, &(spec.shapes.case)(dtype, &sizes), dtype)?;
    let mut all: BTreeMap<String, KernelCounters> = BTreeMap::new();
    for launch in emulator.take_launches() {
        let sum = all.entry(launch.kernel).or_default();
        sum.launches += 1;
        sum.sum.add(&launch.counters);
    }
    Ok(all)
}

/// Returns the op's first real sizes with few rows; the first size is the number of rows in every op.
fn small(spec: &Spec) -> Vec<usize> {
    let mut sizes = spec.shapes.real[0].to_vec();
    if let Some(rows) = sizes.first_mut() {
        *rows = (*rows).min(128);
    }
    sizes
}

/// Runs the case forward, and backward from random gradients where it has a backward.
pub fn both_ways(device: &Device, case: &Case, dtype: DType) -> Result<()> {
    let inputs = inputs(device, case, dtype, 1)?;
    let cx = Ctx::training(device, 1, 0);
    let outputs = (case.run)(&cx, &inputs.iter().collect::<Vec<_>>())?;
    let ends: Vec<_> = outputs.iter().filter(|y| y.id().is_some()).collect();
    let seeds: Vec<_> = (0..)
        .zip(&ends)
        .map(|(site, y)| random(device, *y.shape(), y.dtype(), 1.0, RngKey { seed: 1, step: 1, site }))
        .collect::<Result<_>>()?;
    cx.backward(ends.into_iter().zip(seeds), &mut Grads::default())
}

/// Returns the table of kernels.
pub fn table(counted: &BTreeMap<String, KernelCounters>) -> String {
    let mut text = format!(
        "{:<20}{:>9}{:>16}{:>9}{:>9}{:>9}{:>14}{:>10}{:>12}{:>8}\n",
        "kernel",
        "launches",
        "instructions",
        "mma",
        "special",
        "barrier",
        "global bytes",
        "sectors",
        "conflicts",
        "local"
    );
    for (kernel, KernelCounters { launches, sum }) in counted {
        text += &format!(
            "{kernel:<20}{launches:>9}{:>16}{:>9}{:>9}{:>9}{:>14}{:>8.1} %{:>12}{:>8}\n",
            sum.warp_instructions,
            sum.mma.warps,
            sum.special.warps,
            sum.barrier.warps,
            sum.global_bytes(),
            100.0 * sum.sector_efficiency(),
            sum.bank_conflicts(),
            sum.local_bytes(),
        );
    }
    text
}

/// Returns the counters as JSON.
pub fn object(op: &str, counted: &BTreeMap<String, KernelCounters>) -> Value {
    let kernels = counted.iter().map(|(kernel, KernelCounters { launches, sum })| {
        json!({
            "kernel": kernel, "launches": launches, "warp_instructions": sum.warp_instructions,
            "thread_instructions": sum.thread_instructions, "mma": sum.mma.warps,
            "global_bytes": sum.global_bytes(), "sector_efficiency": sum.sector_efficiency(),
            "bank_conflicts": sum.bank_conflicts(), "local_bytes": sum.local_bytes(),
        })
    });
    json!({ "op": op, "kernels": kernels.collect::<Vec<_>>() })
}
