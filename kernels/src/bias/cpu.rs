//! The CPU twin: rows in parallel, and columns of their sum.

use crate::rows::{rows_per_task, sum_rows};
use crate::simd::{Storage, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;

/// Computes y = x + b, row by row.
pub fn forward<E: Storage, W: Storage>(y: &mut Tensor, x: &Tensor, b: &Tensor) -> Result<()> {
    let (x, b) = (x.slice::<E>()?, b.slice::<W>()?); // (T, N) (N)
    let columns = b.len().max(1);
    let rows = rows_per_task(columns);
    let y = y.slice_mut::<E>()?.par_chunks_mut(rows * columns);
    y.zip(x.par_chunks(rows * columns)).for_each_on_team(|(y, x)| {
        vectorize(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
                    for ((y, x), b) in y.iter_mut().zip(x).zip(b) {
                        *y = E::put(x.get() + b.get());
                    }
                }
            },
        );
    });
    Ok(())
}

/// Computes db = Σ dy over the rows, ascending.
pub fn backward_b<E: Storage, W: Storage>(db: &mut Tensor, dy: &Tensor) -> Result<()> {
    let (rows, dy) = (dy.shape().as_matrix().0, dy.slice::<E>()?); // (T, N)
    let db = db.slice_mut::<W>()?; // (N)
    const COLUMNS: usize = 256;
    let n = db.len();
    db.par_chunks_mut(COLUMNS).enumerate().for_each_on_team(|(task, db)| {
        vectorize(
            #[inline(always)]
            || {
                sum_rows(db, 0..rows, |t, columns| {
                    let start = t * n + task * COLUMNS;
                    dy[start + columns.start..start + columns.end].iter().map(|dy| dy.get())
                });
            },
        );
    });
    Ok(())
}
