//! The loop of elementwise ops on the CPU: chunks of elements in parallel, compiled for each instruction set.

use crate::rows::TASK_SIZE;
use crate::simd::{Storage, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{DType, Error, Result, Tensor};
use half::bf16;
use rayon::prelude::*;

/// Computes the outputs' elements from the inputs' elements of the same index, in f32, rounded once. Mark `f`
/// `#[inline(always)]`, see [`vectorize`].
///
/// # Errors
/// When a tensor is not in host memory, or not of the first input's type, or that is of integers.
pub fn map<const INPUTS: usize, const OUTPUTS: usize>(
    outputs: [&mut Tensor; OUTPUTS],
    inputs: [&Tensor; INPUTS],
    f: impl Fn([f32; INPUTS]) -> [f32; OUTPUTS] + Sync,
) -> Result<()> {
    match inputs[0].dtype() {
        DType::BF16 => in_storage::<bf16, bf16, INPUTS, OUTPUTS>(outputs, inputs, f),
        DType::F32 => in_storage::<f32, f32, INPUTS, OUTPUTS>(outputs, inputs, f),
        DType::I32 => Err(Error::new("integers have no elementwise arithmetic")),
    }
}

#[inline(always)]
fn same(x: [f32; 1]) -> [f32; 1] {
    x
}

/// Computes y = x, rounded to the type of y.
///
/// # Errors
/// When one of the tensors is not in host memory, or is of integers.
pub fn convert(y: &mut Tensor, x: &Tensor) -> Result<()> {
    match x.dtype() {
        DType::BF16 => in_storage::<bf16, f32, 1, 1>([y], [x], same),
        _ => in_storage::<f32, bf16, 1, 1>([y], [x], same),
    }
}

fn in_storage<From: Storage, To: Storage, const INPUTS: usize, const OUTPUTS: usize>(
    outputs: [&mut Tensor; OUTPUTS],
    inputs: [&Tensor; INPUTS],
    f: impl Fn([f32; INPUTS]) -> [f32; OUTPUTS] + Sync,
) -> Result<()> {
    let elements = inputs[0].shape().elements();
    let inputs: Vec<&[From]> = inputs.into_iter().map(Tensor::slice).collect::<Result<_>>()?;
    let outputs: Vec<&mut [To]> = outputs.into_iter().map(Tensor::slice_mut).collect::<Result<_>>()?;
    let mut chunks: Vec<_> = outputs.into_iter().map(|y| y.chunks_mut(TASK_SIZE)).collect();
    let tasks: Vec<_> = (0..elements.div_ceil(TASK_SIZE))
        .map(|task| {
            let y: [&mut [To]; OUTPUTS] = std::array::from_fn(|k| chunks[k].next().unwrap_or_default());
            let range = task * TASK_SIZE..elements.min((task + 1) * TASK_SIZE);
            let x: [&[From]; INPUTS] = std::array::from_fn(|k| &inputs[k][range.clone()]);
            (y, x)
        })
        .collect();
    tasks.into_par_iter().for_each_on_team(|(mut y, x)| {
        vectorize(
            #[inline(always)]
            || {
                let n = x[0].len();
                // Slices of one known length: the compiler drops the bounds checks of the loop.
                let x = x.map(|x| &x[..n]);
                let mut y = y.each_mut().map(|y| &mut y[..n]);
                for i in 0..n {
                    let values = f(std::array::from_fn(|k| x[k][i].get()));
                    for (y, value) in y.iter_mut().zip(values) {
                        y[i] = To::put(value);
                    }
                }
            },
        );
    });
    Ok(())
}
