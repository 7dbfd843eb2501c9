//! `counters`: counts of the software GPU for each kernel of an op, at sizes of Code Llama 13B or given ones.

use crate::specs::{sizes, specs};
use codelsi_emulator::Counters;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Label, Result, Tensor};
use codelsi_kernels::check::{inputs, random};
use codelsi_kernels::spec::{Case, Input, InputContent, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The counters of an op's kernels.
pub struct OpCounters {
    pub op: String,
    /// Sizes of the case.
    pub shape: String,
    pub dtype: DType,
    pub arch: String,
    pub kernels: BTreeMap<String, KernelCounters>,
}

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
pub fn count(device: &Device, op: &str, shape: Option<&str>, dtype: DType) -> Result<OpCounters> {
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
    let case = (spec.shapes.case)(dtype, &sizes);
    run_passes(device, &case, dtype, Passes::Both, usize::MAX)?;
    let mut kernels: BTreeMap<String, KernelCounters> = BTreeMap::new();
    for launch in emulator.take_launches() {
        let sum = kernels.entry(launch.kernel).or_default();
        sum.launches += 1;
        sum.sum.add(&launch.counters);
    }
    let arch = cuda.properties().arch.clone();
    Ok(OpCounters { op: op.to_owned(), shape: case.name, dtype, arch, kernels })
}

/// Returns the op's first real sizes with few rows; the first size is the number of rows in every op.
fn small(spec: &Spec) -> Vec<usize> {
    let mut sizes = spec.shapes.real[0].to_vec();
    if let Some(rows) = sizes.first_mut() {
        *rows = (*rows).min(128);
    }
    sizes
}

/// The passes of a case to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passes {
    Forward,
    /// Forward, and backward from random gradients where the op has a backward.
    Both,
}

/// Runs the case. Numbers of tensors of more than `drawn` elements are zero instead of random.
pub fn run_passes(device: &Device, case: &Case, dtype: DType, passes: Passes, drawn: usize) -> Result<()> {
    let inputs: Vec<Tensor> = match case.inputs.iter().all(|input| input.shape.elements() <= drawn) {
        true => inputs(device, case, dtype, 1)?,
        false => case.inputs.iter().map(|x| sparse_input(device, x, dtype)).collect::<Result<_>>()?,
    };
    let cx = Ctx::training(device, 1, 0);
    let outputs = (case.run)(&cx, &inputs.iter().collect::<Vec<_>>())?;
    if passes == Passes::Forward {
        return Ok(());
    }
    let ends: Vec<_> = outputs.iter().filter(|y| y.id().is_some()).collect();
    let seed = |(site, y): (u32, &&Tensor)| match y.shape().elements() <= drawn {
        true => random(device, *y.shape(), y.dtype(), 1.0, RngKey { seed: 1, step: 1, site }),
        false => Ok(device.zeros(Label::Gradients, *y.shape(), y.dtype())),
    };
    let seeds: Vec<_> = (0..).zip(&ends).map(seed).collect::<Result<_>>()?;
    cx.backward(ends.into_iter().zip(seeds), &mut Grads::default())
}

/// Makes an input whose random numbers are zero; integers are as given.
fn sparse_input(device: &Device, input: &Input, dtype: DType) -> Result<Tensor> {
    let zeros = |dtype| Ok(device.zeros(Label::Activations, input.shape, dtype));
    let tensor = match &input.content {
        InputContent::Int(data) => device.tensor(Label::Activations, input.shape, data),
        InputContent::BF16(_) => zeros(DType::BF16),
        InputContent::F32(_) | InputContent::Coarse(_) => zeros(DType::F32),
        InputContent::Storage(_) | InputContent::Given(_) => zeros(dtype),
    }?;
    Ok(if input.grad { tensor.with_grad() } else { tensor })
}

/// Returns the table of kernels.
pub fn table(counted: &OpCounters) -> String {
    let OpCounters { op, shape, dtype, arch, kernels } = counted;
    let mut text = format!(
        "{op} {shape} {dtype:?}, {arch}\n{:<20}{:>9}{:>16}{:>9}{:>9}{:>9}{:>14}{:>10}{:>12}{:>8}\n",
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
    for (kernel, KernelCounters { launches, sum }) in kernels {
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
pub fn object(counted: &OpCounters) -> Value {
    let OpCounters { op, shape, dtype, arch, .. } = counted;
    json!({
        "op": op, "shape": shape, "dtype": format!("{dtype:?}"), "arch": arch, "kernels": rows(counted),
    })
}

/// Returns an object of each kernel.
pub fn rows(counted: &OpCounters) -> Vec<Value> {
    let OpCounters { op, shape, dtype, arch, kernels } = counted;
    let row = |(kernel, KernelCounters { launches, sum }): (&String, &KernelCounters)| {
        json!({
            "op": op, "shape": shape, "dtype": format!("{dtype:?}"), "arch": arch, "kernel": kernel,
            "launches": launches, "warp_instructions": sum.warp_instructions,
            "thread_instructions": sum.thread_instructions, "mma": sum.mma.warps,
            "special": sum.special.warps, "barrier": sum.barrier.warps, "global_bytes": sum.global_bytes(),
            "sector_efficiency": sum.sector_efficiency(), "bank_conflicts": sum.bank_conflicts(),
            "local_bytes": sum.local_bytes(),
        })
    };
    kernels.iter().map(row).collect()
}
