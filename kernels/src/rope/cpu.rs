//! The CPU twin: tokens in parallel, both halves of a head in one loop.

use crate::rows::rows_per_task;
use crate::simd::{Storage, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Fills the table: row p holds `factor` times cos and sin of p · f_j.
pub fn table(table: &mut Tensor, frequencies: &[f64], factor: f64) -> Result<()> {
    let dim = table.shape()[1];
    table.slice_mut::<f32>()?.par_chunks_exact_mut(dim).enumerate().for_each_on_team(|(p, row)| {
        let (cos, sin) = row.split_at_mut(dim / 2);
        for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
            let angle = p as f64 * frequency;
            (*cos, *sin) = ((factor * angle.cos()) as f32, (factor * angle.sin()) as f32);
        }
    });
    Ok(())
}

/// Rotates every head of x by `direction` times the angles of its token.
pub fn rotate<E: Storage>(
    y: &mut Tensor,
    x: &Tensor,
    positions: &Tensor,
    table: &Tensor,
    direction: f32,
) -> Result<()> {
    let (columns, dim) = (x.shape().as_matrix().1, table.shape()[1]);
    let (positions, table) = (positions.slice::<i32>()?, table.slice::<f32>()?); // (T) (P, D)
    let rows = rows_per_task(columns);
    let x = x.slice::<E>()?.par_chunks(rows * columns); // (T, H·D)
    let y = y.slice_mut::<E>()?.par_chunks_mut(rows * columns); // (T, H·D)
    y.zip(x).zip(positions.par_chunks(rows)).for_each_on_team(|((y, x), positions)| {
        vectorize(
            #[inline(always)]
            || {
                let tokens = y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).zip(positions);
                for ((y, x), &position) in tokens {
                    let (cos, sin) = table[position as usize * dim..][..dim].split_at(dim / 2);
                    for (y, x) in y.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                        rotate_head(y, x, cos, sin, direction);
                    }
                }
            },
        );
    });
    Ok(())
}

#[inline(always)]
fn rotate_head<E: Storage>(y: &mut [E], x: &[E], cos: &[f32], sin: &[f32], direction: f32) {
    let half = cos.len();
    let (y0, y1) = y.split_at_mut(half);
    let (x0, x1) = x.split_at(half);
    let (y1, x1, sin) = (&mut y1[..half], &x1[..half], &sin[..half]);
    for j in 0..half {
        let (x0, x1, cos, sin) = (x0[j].get(), x1[j].get(), cos[j], direction * sin[j]);
        y0[j] = E::put(x0 * cos - x1 * sin);
        y1[j] = E::put(x1 * cos + x0 * sin);
    }
}
