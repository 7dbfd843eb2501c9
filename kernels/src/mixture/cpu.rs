//! The CPU twin: rows in parallel.

use crate::rows::rows_per_task;
use crate::simd::{Storage, exp, max, sum, sum2, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes U_e = s g_e S_e.
pub fn forward<E: Storage>(u: &mut Tensor, s: &Tensor, logits: &Tensor, scale: f32) -> Result<()> {
    let (width, experts) = (s.shape().as_matrix().1, logits.shape().as_matrix().1);
    let inputs = s.slice::<E>()?.par_chunks(width).zip(logits.slice::<E>()?.par_chunks(experts));
    let rows = u.slice_mut::<E>()?.par_chunks_mut(width).with_min_len(rows_per_task(width));
    rows.zip(inputs).for_each_on_team(|(u, (s, logits))| {
        vectorize(
            #[inline(always)]
            || {
                let gates = softmax(logits);
                let experts_of_row = u.chunks_exact_mut(width / experts).zip(s.chunks_exact(width / experts));
                for ((u, s), g) in experts_of_row.zip(gates) {
                    u.iter_mut().zip(s).for_each(|(u, s)| *u = E::put(scale * g * s.get()));
                }
            },
        );
    });
    Ok(())
}

/// Computes dS and the gradient of the logits.
pub fn backward<E: Storage>(
    [ds, dl]: [&mut Tensor; 2],
    du: &Tensor,
    s: &Tensor,
    logits: &Tensor,
    scale: f32,
) -> Result<()> {
    let (width, experts) = (s.shape().as_matrix().1, logits.shape().as_matrix().1);
    let inputs = s.slice::<E>()?.par_chunks(width).zip(logits.slice::<E>()?.par_chunks(experts));
    let inputs = inputs.zip(du.slice::<E>()?.par_chunks(width));
    let rows = ds.slice_mut::<E>()?.par_chunks_mut(width).with_min_len(rows_per_task(width));
    let outputs = rows.zip(dl.slice_mut::<E>()?.par_chunks_mut(experts));
    outputs.zip(inputs).for_each_on_team(|((ds, dl), ((s, logits), du))| {
        vectorize(
            #[inline(always)]
            || backward_row([ds, dl], du, s, logits, scale),
        );
    });
    Ok(())
}

#[inline(always)]
fn backward_row<E: Storage>([ds, dl]: [&mut [E]; 2], du: &[E], s: &[E], logits: &[E], scale: f32) {
    let (gates, rank) = (softmax(logits), s.len() / logits.len());
    let expert = |e: usize| e * rank..(e + 1) * rank;
    let gate_gradients: Vec<f32> = (0..gates.len())
        .map(|e| {
            let (du, s) = (&du[expert(e)], &s[expert(e)]);
            scale * sum2(du, s, |du, s| du.get() * s.get())
        })
        .collect();
    let mean = sum2(&gates, &gate_gradients, |g, dg| g * dg);
    for (e, &g) in gates.iter().enumerate() {
        ds[expert(e)].iter_mut().zip(&du[expert(e)]).for_each(|(ds, du)| *ds = E::put(scale * g * du.get()));
        dl[e] = E::put(g * (gate_gradients[e] - mean));
    }
}

#[inline(always)]
fn softmax<E: Storage>(logits: &[E]) -> Vec<f32> {
    let mut gates: Vec<f32> = logits.iter().map(|l| l.get()).collect();
    let max_logit = max(&gates);
    gates.iter_mut().for_each(|g| *g = exp(*g - max_logit));
    let total = sum(&gates, |g| g);
    gates.iter_mut().for_each(|g| *g /= total);
    gates
}
