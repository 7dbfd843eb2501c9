//! The CPU twin: the elements in parallel chunks.

use super::Hyper;
use crate::rows::TASK;
use crate::simd::vectorize;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// One step of one parameter.
pub fn step(p: &mut Tensor, g: &Tensor, m: &mut Tensor, v: &mut Tensor, hyper: &Hyper) -> Result<()> {
    let Hyper { lr, beta1, beta2, eps, weight_decay, grad_scale, .. } = *hyper;
    let [correction1, correction2] = hyper.corrections();
    let keep = 1.0 - lr * weight_decay;
    let moments = m.slice_mut::<f32>()?.par_chunks_mut(TASK).zip(v.slice_mut::<f32>()?.par_chunks_mut(TASK));
    let values = p.slice_mut::<f32>()?.par_chunks_mut(TASK).zip(g.slice::<f32>()?.par_chunks(TASK));
    values.zip(moments).for_each(|((p, g), (m, v))| {
        vectorize(
            #[inline(always)]
            || {
                for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * grad_scale;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p = *p * keep - lr * (*m / correction1) / ((*v / correction2).sqrt() + eps);
                }
            },
        );
    });
    Ok(())
}

/// Σg²: chunks by themselves, each in eight partial sums, then added in order; all in f64.
pub fn sum_of_squares(g: &Tensor) -> Result<f64> {
    let squares = |g: &[f32]| {
        let mut sums = [0.0f64; 8];
        vectorize(
            #[inline(always)]
            || {
                for g in g.chunks(sums.len()) {
                    sums.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g as f64 * g as f64);
                }
            },
        );
        sums.iter().sum::<f64>()
    };
    let chunks: Vec<f64> = g.slice::<f32>()?.par_chunks(TASK).map(squares).collect();
    Ok(chunks.iter().sum())
}
