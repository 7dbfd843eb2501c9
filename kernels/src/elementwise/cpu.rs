//! The CPU twin: the elements in parallel chunks.

use crate::cpu::elementwise;
use crate::rows::TASK;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// y = a + b.
pub fn add(y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    elementwise(
        [y],
        [a, b],
        #[inline(always)]
        |[a, b]| [a + b],
    )
}

/// y = x where `of` is above 0, else 0.
pub fn relu(y: &mut Tensor, x: &Tensor, of: &Tensor) -> Result<()> {
    elementwise(
        [y],
        [x, of],
        #[inline(always)]
        |[x, of]| [if of > 0.0 { x } else { 0.0 }],
    )
}

/// y = x, rounded to `To`.
pub fn convert<From: Storage, To: Storage>(y: &mut Tensor, x: &Tensor) -> Result<()> {
    let x = x.slice::<From>()?.par_chunks(TASK);
    y.slice_mut::<To>()?.par_chunks_mut(TASK).zip(x).for_each(|(y, x)| {
        vectorize(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, x)| *y = To::put(x.get())),
        );
    });
    Ok(())
}
