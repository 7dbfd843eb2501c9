//! The CPU twin: chunks of elements in parallel.

use crate::cpu::elementwise;
use crate::rows::TASK_SIZE;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes y = a + b.
pub fn add(y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    elementwise(
        [y],
        [a, b],
        #[inline(always)]
        |[a, b]| [a + b],
    )
}

/// Computes y = x where `sign_of` is above 0, else 0.
pub fn relu(y: &mut Tensor, x: &Tensor, sign_of: &Tensor) -> Result<()> {
    elementwise(
        [y],
        [x, sign_of],
        #[inline(always)]
        |[x, sign]| [if sign > 0.0 { x } else { 0.0 }],
    )
}

/// Computes y = x, rounded to `To`.
pub fn convert<From: Storage, To: Storage>(y: &mut Tensor, x: &Tensor) -> Result<()> {
    let x = x.slice::<From>()?.par_chunks(TASK_SIZE);
    y.slice_mut::<To>()?.par_chunks_mut(TASK_SIZE).zip(x).for_each(|(y, x)| {
        vectorize(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, x)| *y = To::put(x.get())),
        );
    });
    Ok(())
}
