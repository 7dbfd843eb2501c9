//! The CPU twin: tokens in parallel forward, rows of the table in parallel backward.

use crate::rows::{RowShard, rows_per_task, sum_rows};
use crate::simd::{Storage, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Error, Result, Tensor};
use rayon::prelude::*;

/// Computes y_t = table[ids_t − first], or 0 where another rank holds that row.
pub fn forward<W: Storage, E: Storage>(
    y: &mut Tensor,
    table: &Tensor,
    ids: &Tensor,
    rows: RowShard,
) -> Result<()> {
    let (held, c) = table.shape().as_matrix();
    let RowShard { first, total: vocab } = rows;
    let (table, ids) = (table.slice::<W>()?, ids.slice::<i32>()?); // (V, C) (T)
    if let Some(t) = ids.iter().position(|&id| id < 0 || id as usize >= vocab) {
        let message = format!("id {} of token {t} is outside the vocabulary of {vocab}", ids[t]);
        return Err(Error::new(message));
    }
    let task = rows_per_task(c);
    let y = y.slice_mut::<E>()?.par_chunks_mut(task * c); // (T, C)
    y.zip(ids.par_chunks(task)).for_each_on_team(|(y, ids)| {
        vectorize(
            #[inline(always)]
            || {
                for (y, &id) in y.chunks_exact_mut(c).zip(ids) {
                    match (id as usize).checked_sub(first).filter(|&row| row < held) {
                        Some(row) => {
                            let row = &table[row * c..][..c];
                            y.iter_mut().zip(row).for_each(|(y, x)| *y = E::put(x.get()));
                        }
                        None => y.fill(E::put(0.0)),
                    }
                }
            },
        );
    });
    Ok(())
}

/// Computes dtable_v = Σ dy_t over the tokens with id first + v, ascending. `order` becomes the tokens sorted by id,
/// then by index.
pub fn backward<W: Storage, E: Storage>(
    dtable: &mut Tensor,
    order: &mut Tensor,
    dy: &Tensor,
    ids: &Tensor,
    first: usize,
) -> Result<()> {
    let c = dtable.shape().as_matrix().1;
    let (dy, ids) = (dy.slice::<E>()?, ids.slice::<i32>()?); // (T, C) (T)
    let order = order.slice_mut::<i32>()?; // (T)
    order.iter_mut().zip(0..).for_each(|(o, t)| *o = t);
    order.sort_unstable_by_key(|&t| (ids[t as usize], t));
    let tokens_of = |v: usize| {
        let below = |v: usize| order.partition_point(|&t| (ids[t as usize] as usize) < v);
        &order[below(first + v)..below(first + v + 1)]
    };
    dtable
        .slice_mut::<W>()?
        .par_chunks_exact_mut(c)
        .with_min_len(rows_per_task(c))
        .enumerate()
        .for_each_on_team(|(v, row)| {
            let tokens = tokens_of(v).iter().map(|&t| t as usize);
            vectorize(
                #[inline(always)]
                || sum_rows(row, tokens, |t, columns| dy[t * c..][columns].iter().map(|d| d.get())),
            );
        });
    Ok(())
}
