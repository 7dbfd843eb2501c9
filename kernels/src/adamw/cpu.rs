//! The CPU twin: chunks of elements in parallel.

use super::{AdamWParam, Hyperparameters};
use crate::rows::TASK_SIZE;
use crate::simd::vectorize;
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Performs one step of every parameter.
pub fn step(params: &mut [AdamWParam<'_>], hyper: &Hyperparameters, squares: &Tensor) -> Result<()> {
    let squares = squares.slice::<f32>()?[0];
    if !squares.is_finite() {
        return Ok(());
    }
    let grad_scale = hyper.clip_factor(squares);
    params.iter_mut().try_for_each(|param| step_one(param, hyper, grad_scale))
}

fn step_one(
    AdamWParam { p, g, m, v }: &mut AdamWParam<'_>,
    hyper: &Hyperparameters,
    grad_scale: f32,
) -> Result<()> {
    let Hyperparameters { lr, beta1, beta2, eps, weight_decay, .. } = *hyper;
    let [correction1, correction2] = hyper.bias_corrections();
    let decay = 1.0 - lr * weight_decay;
    let moments =
        m.slice_mut::<f32>()?.par_chunks_mut(TASK_SIZE).zip(v.slice_mut::<f32>()?.par_chunks_mut(TASK_SIZE));
    let values = p.slice_mut::<f32>()?.par_chunks_mut(TASK_SIZE).zip(g.slice::<f32>()?.par_chunks(TASK_SIZE));
    values.zip(moments).for_each_on_team(|((p, g), (m, v))| {
        vectorize(
            #[inline(always)]
            || {
                for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * grad_scale;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p = *p * decay - lr * (*m / correction1) / ((*v / correction2).sqrt() + eps);
                }
            },
        );
    });
    Ok(())
}

/// Computes Σg² of all gradients, one after the other.
pub fn sum_of_squares<'a>(sum: &mut Tensor, grads: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    let squares: Result<f64> = grads.into_iter().map(squares_of).sum();
    sum.write(&[squares? as f32])
}

/// Returns Σg² of a gradient: chunks separately, each in eight partial sums, then added in order; all in f64.
fn squares_of(g: &Tensor) -> Result<f64> {
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
    let g = g.slice::<f32>()?;
    let mut sums = vec![0.0; g.len().div_ceil(TASK_SIZE)];
    sums.par_iter_mut().zip(g.par_chunks(TASK_SIZE)).for_each_on_team(|(sum, g)| *sum = squares(g));
    Ok(sums.iter().sum())
}
