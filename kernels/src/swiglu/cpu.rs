//! The CPU twin: chunks of elements in parallel.

use crate::rows::TASK_SIZE;
use crate::simd::{Storage, sigmoid, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes y = silu(gate)·up.
pub fn forward<E: Storage>(y: &mut Tensor, gate: &Tensor, up: &Tensor) -> Result<()> {
    let inputs = gate.slice::<E>()?.par_chunks(TASK_SIZE).zip(up.slice::<E>()?.par_chunks(TASK_SIZE)); // (T, F)
    y.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE).zip(inputs).for_each(|(y, (gate, up))| {
        vectorize(
            #[inline(always)]
            || {
                for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                    let gate = gate.get();
                    *y = E::put(gate * sigmoid(gate) * up.get());
                }
            },
        );
    });
    Ok(())
}

/// Computes both gradients in one pass.
pub fn backward<E: Storage>(
    dgate: &mut Tensor,
    dup: &mut Tensor,
    dy: &Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> Result<()> {
    let inputs = gate.slice::<E>()?.par_chunks(TASK_SIZE).zip(up.slice::<E>()?.par_chunks(TASK_SIZE)); // (T, F)
    let inputs = inputs.zip(dy.slice::<E>()?.par_chunks(TASK_SIZE)); // (T, F)
    let dup = dup.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE);
    let outputs = dgate.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE).zip(dup);
    outputs.zip(inputs).for_each(|((dgate, dup), ((gate, up), dy))| {
        vectorize(
            #[inline(always)]
            || {
                let outputs = dgate.iter_mut().zip(dup);
                for ((dgate, dup), ((gate, up), dy)) in outputs.zip(gate.iter().zip(up).zip(dy)) {
                    let (gate, up, dy) = (gate.get(), up.get(), dy.get());
                    let s = sigmoid(gate);
                    *dgate = E::put(dy * up * s * (1.0 + gate * (1.0 - s)));
                    *dup = E::put(dy * gate * s);
                }
            },
        );
    });
    Ok(())
}
