//! The CPU twin: rows in parallel; for dw, columns in parallel.

use crate::rows::{rows_per_task, sum_rows};
use crate::simd::{Storage, sum, sum3, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes y = rmsnorm(x) and r = 1/rms of each row.
pub fn forward<E: Storage>(y: &mut Tensor, r: &mut Tensor, x: &Tensor, w: &Tensor, eps: f32) -> Result<()> {
    let w = w.slice::<f32>()?; // (C)
    let (c, rows) = (w.len(), rows_per_task(w.len()));
    let x = x.slice::<E>()?.par_chunks(rows * c); // (T, C)
    let y = y.slice_mut::<E>()?.par_chunks_mut(rows * c); // (T, C)
    let r = r.slice_mut::<f32>()?.par_chunks_mut(rows); // (T)
    y.zip(r).zip(x).for_each_on_team(|((y, r), x)| {
        vectorize(
            #[inline(always)]
            || {
                for ((y, r), x) in y.chunks_exact_mut(c).zip(r).zip(x.chunks_exact(c)) {
                    *r = normalize(y, x, w, eps);
                }
            },
        );
    });
    Ok(())
}

/// Computes sum = a + b, y = rmsnorm(sum) and r = 1/rms of each row of the sum.
pub fn add_forward<E: Storage>(
    [sum, y, r]: [&mut Tensor; 3],
    a: &Tensor,
    b: &Tensor,
    w: &Tensor,
    eps: f32,
) -> Result<()> {
    let w = w.slice::<f32>()?; // (C)
    let (c, rows) = (w.len(), rows_per_task(w.len()));
    let terms = a.slice::<E>()?.par_chunks(rows * c).zip(b.slice::<E>()?.par_chunks(rows * c)); // (T, C)
    let sum = sum.slice_mut::<E>()?.par_chunks_mut(rows * c); // (T, C)
    let y = y.slice_mut::<E>()?.par_chunks_mut(rows * c); // (T, C)
    let r = r.slice_mut::<f32>()?.par_chunks_mut(rows); // (T)
    sum.zip(y).zip(r).zip(terms).for_each_on_team(|(((sum, y), r), (a, b))| {
        vectorize(
            #[inline(always)]
            || {
                for ((s, a), b) in sum.iter_mut().zip(a).zip(b) {
                    *s = E::put(a.get() + b.get());
                }
                for ((y, r), x) in y.chunks_exact_mut(c).zip(r).zip(sum.chunks_exact(c)) {
                    *r = normalize(y, x, w, eps);
                }
            },
        );
    });
    Ok(())
}

/// Computes one row of y; returns 1/rms of the row of x.
#[inline(always)]
fn normalize<E: Storage>(y: &mut [E], x: &[E], w: &[f32], eps: f32) -> f32 {
    let squares = sum(x, |x| x.get() * x.get());
    let r = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y = E::put(x.get() * r * w);
    }
    r
}

/// Computes dx = r·(g − x·r²·mean(g·x)) with g = dy·w, plus `dsum` if there is one.
pub fn backward<E: Storage>(
    dx: &mut Tensor,
    dy: &Tensor,
    dsum: Option<&Tensor>,
    x: &Tensor,
    w: &Tensor,
    r: &Tensor,
) -> Result<()> {
    let w = w.slice::<f32>()?; // (C)
    let c = w.len();
    let (dy, x, r) = (dy.slice::<E>()?, x.slice::<E>()?, r.slice::<f32>()?); // (T, C) (T, C) (T)
    let dsum = dsum.map(|t| t.slice::<E>()).transpose()?; // (T, C)
    let rows = rows_per_task(c);
    dx.slice_mut::<E>()?.par_chunks_mut(rows * c).enumerate().for_each_on_team(|(task, dx)| {
        vectorize(
            #[inline(always)]
            || {
                for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                    let t = task * rows + i;
                    let row = t * c..(t + 1) * c;
                    let (dy, x) = (&dy[row.clone()], &x[row.clone()]);
                    match dsum {
                        Some(dsum) => backward_row(dx, dy, x, w, r[t], dsum[row].iter().map(|d| d.get())),
                        None => backward_row(dx, dy, x, w, r[t], std::iter::repeat(0.0)),
                    }
                }
            },
        );
    });
    Ok(())
}

#[inline(always)]
fn backward_row<E: Storage>(
    dx: &mut [E],
    dy: &[E],
    x: &[E],
    w: &[f32],
    r: f32,
    dsum: impl Iterator<Item = f32>,
) {
    let (dy, w) = (&dy[..x.len()], &w[..x.len()]);
    let gx = sum3(dy, w, x, |dy, w, x| dy.get() * w * x.get());
    let slope = r * r * (gx / x.len() as f32);
    for ((((dx, dy), x), w), dsum) in dx.iter_mut().zip(dy).zip(x).zip(w).zip(dsum) {
        *dx = E::put(r * (dy.get() * w - x.get() * slope) + dsum);
    }
}

/// Computes dw = Σ dy·x·r over the rows, ascending.
pub fn backward_w<E: Storage, W: Storage>(
    dw: &mut Tensor,
    dy: &Tensor,
    x: &Tensor,
    r: &Tensor,
) -> Result<()> {
    let (dy, x, r) = (dy.slice::<E>()?, x.slice::<E>()?, r.slice::<f32>()?); // (T, C) (T, C) (T)
    let dw = dw.slice_mut::<W>()?; // (C)
    let (c, columns) = (dw.len(), 256);
    dw.par_chunks_mut(columns).enumerate().for_each_on_team(|(task, dw)| {
        vectorize(
            #[inline(always)]
            || {
                let start = task * columns;
                sum_rows(dw, 0..r.len(), |t, columns| {
                    let part = t * c + start + columns.start..t * c + start + columns.end;
                    let pairs = dy[part.clone()].iter().zip(&x[part]);
                    pairs.map(move |(dy, x)| dy.get() * x.get() * r[t])
                });
            },
        );
    });
    Ok(())
}
