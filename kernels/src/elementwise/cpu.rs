//! The CPU twin: chunks of elements in parallel.

use crate::rows::TASK_SIZE;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes y = a + b.
pub fn add<E: Storage>(y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let parts = a.slice::<E>()?.par_chunks(TASK_SIZE).zip(b.slice::<E>()?.par_chunks(TASK_SIZE));
    y.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE).zip(parts).for_each(|(y, (a, b))| {
        vectorize(
            #[inline(always)]
            || {
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = E::put(a.get() + b.get());
                }
            },
        );
    });
    Ok(())
}

/// Computes y = x where `sign_of` is above 0, else 0.
pub fn relu<E: Storage>(y: &mut Tensor, x: &Tensor, sign_of: &Tensor) -> Result<()> {
    let parts = x.slice::<E>()?.par_chunks(TASK_SIZE).zip(sign_of.slice::<E>()?.par_chunks(TASK_SIZE));
    y.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE).zip(parts).for_each(|(y, (x, signs))| {
        vectorize(
            #[inline(always)]
            || {
                for ((y, x), sign) in y.iter_mut().zip(x).zip(signs) {
                    *y = E::put(if sign.get() > 0.0 { x.get() } else { 0.0 });
                }
            },
        );
    });
    Ok(())
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
