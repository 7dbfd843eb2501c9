//! The CPU twin: the elements in parallel chunks.

use crate::rows::TASK;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// y = a + b.
pub fn add<E: Storage>(y: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let parts = a.slice::<E>()?.par_chunks(TASK).zip(b.slice::<E>()?.par_chunks(TASK));
    y.slice_mut::<E>()?.par_chunks_mut(TASK).zip(parts).for_each(|(y, (a, b))| {
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

/// y = x where `of` is above 0, else 0.
pub fn relu<E: Storage>(y: &mut Tensor, x: &Tensor, of: &Tensor) -> Result<()> {
    let parts = x.slice::<E>()?.par_chunks(TASK).zip(of.slice::<E>()?.par_chunks(TASK));
    y.slice_mut::<E>()?.par_chunks_mut(TASK).zip(parts).for_each(|(y, (x, of))| {
        vectorize(
            #[inline(always)]
            || {
                for ((y, x), of) in y.iter_mut().zip(x).zip(of) {
                    *y = E::put(if of.get() > 0.0 { x.get() } else { 0.0 });
                }
            },
        );
    });
    Ok(())
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
