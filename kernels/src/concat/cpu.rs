//! The CPU twin: rows in parallel.

use crate::rows::rows_per_task;
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Elem, Result, Tensor};
use rayon::prelude::*;

/// Copies the rows of y, part by part.
pub fn concat<E: Elem>(y: &mut Tensor, parts: &[Tensor]) -> Result<()> {
    let columns = y.shape().as_matrix().1.max(1);
    let parts: Vec<(&[E], usize)> =
        parts.iter().map(|p| Ok((p.slice::<E>()?, p.shape().as_matrix().1))).collect::<Result<_>>()?;
    let rows = y.slice_mut::<E>()?.par_chunks_mut(columns).with_min_len(rows_per_task(columns)).enumerate();
    rows.for_each_on_team(|(t, mut row)| {
        for (x, width) in &parts {
            let (part, rest) = std::mem::take(&mut row).split_at_mut(*width);
            part.copy_from_slice(&x[t * width..][..*width]);
            row = rest;
        }
    });
    Ok(())
}
