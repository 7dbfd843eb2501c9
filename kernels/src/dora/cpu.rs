//! The CPU twin: rows in parallel, and columns in parallel where rows are summed.

use crate::lora::LoraLinear;
use crate::rows::{rows_per_task, sum_rows};
use crate::simd::{Storage, sum, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes the norms of the rows of W + s B A.
pub fn norms<W: Storage>(n: &mut Tensor, target: &LoraLinear) -> Result<()> {
    let (rank, c) = target.a.shape().as_matrix();
    let (w, a, b) = (target.w.slice::<W>()?, target.a.slice::<f32>()?, target.b.slice::<f32>()?);
    let rows = rows_per_task(c * (1 + rank));
    n.slice_mut::<f32>()?.par_chunks_mut(rows).enumerate().for_each_on_team(|(task, n)| {
        let mut row = vec![0.0f32; c];
        vectorize(
            #[inline(always)]
            || {
                for (j, n) in (task * rows..).zip(n) {
                    row.iter_mut().zip(&w[j * c..][..c]).for_each(|(row, w)| *row = w.get());
                    for (b, a) in b[j * rank..][..rank].iter().zip(a.chunks_exact(c)) {
                        let factor = target.scale * b;
                        row.iter_mut().zip(a).for_each(|(row, a)| *row += factor * a);
                    }
                    *n = sum(&row, |w| w * w).sqrt();
                }
            },
        );
    });
    Ok(())
}

/// Computes y = x ⊙ m/n.
pub fn magnify<E: Storage>(y: &mut Tensor, x: &Tensor, m: &Tensor, n: &Tensor) -> Result<()> {
    let (m, n) = (m.slice::<f32>()?, n.slice::<f32>()?); // (N)
    let x = x.slice::<E>()?.par_chunks(m.len()); // (T, N)
    let rows = y.slice_mut::<E>()?.par_chunks_mut(m.len()).with_min_len(rows_per_task(m.len())); // (T, N)
    rows.zip(x).for_each_on_team(|(y, x)| {
        vectorize(
            #[inline(always)]
            || {
                for (((y, x), m), n) in y.iter_mut().zip(x).zip(m).zip(n) {
                    *y = E::put(x.get() * (m / n));
                }
            },
        );
    });
    Ok(())
}

/// Computes dm = Σ dy ⊙ y / m over the rows, ascending.
pub fn magnitudes<E: Storage>(dm: &mut Tensor, dy: &Tensor, y: &Tensor, m: &Tensor) -> Result<()> {
    const COLUMNS: usize = 256;
    let ((rows, channels), m) = (y.shape().as_matrix(), m.slice::<f32>()?);
    let (dy, y) = (dy.slice::<E>()?, y.slice::<E>()?); // (T, N)
    dm.slice_mut::<f32>()?.par_chunks_mut(COLUMNS).enumerate().for_each_on_team(|(task, dm)| {
        vectorize(
            #[inline(always)]
            || {
                let first = task * COLUMNS;
                sum_rows(dm, 0..rows, |t, columns| {
                    let part = t * channels + first + columns.start..t * channels + first + columns.end;
                    dy[part.clone()].iter().zip(&y[part]).map(|(dy, y)| dy.get() * y.get())
                });
                dm.iter_mut().zip(&m[first..]).for_each(|(dm, m)| *dm /= m);
            },
        );
    });
    Ok(())
}
