//! The CPU twin. A chunk of rows is packed once for all products that read it: the adapters and the weights of every target.
//!
//! Many rows are cut into chunks, a task each; the products of few rows are one chunk, and share the threads instead. Neither
//! changes a bit: an element is one chain, whatever the chunk.

mod backward;
mod forward;

use super::Lora;
use crate::dropout;
use codelsi_engine::op_times::Pass;
use codelsi_engine::team::{self, ForEachOnTeam};
use codelsi_engine::{Ctx, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a chunk: enough that packing a weight for them is little beside the product, and few enough for the L2 cache.
const CHUNK: Range<usize> = 64..256;

/// Calls `f` on chunks that make up `rows` rows: on one for each task, or on all of them at once where that would leave
/// threads without work.
fn for_each_chunk(rows: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = team::threads();
    if rows < CHUNK.start * threads {
        return f(0..rows);
    }
    let height = (rows / (2 * threads)).clamp(CHUNK.start, CHUNK.end);
    (0..rows.div_ceil(height)).into_par_iter().for_each_on_team(|i| {
        f(i * height..rows.min((i + 1) * height));
    });
}

impl Lora {
    /// Returns drop(x), or x itself without dropout.
    fn drop(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        let Some(dropout) = &self.dropout else { return Ok(x.detach()) };
        let mut dropped = cx.scratch(*x.shape(), x.dtype());
        if !cx.device().is_plan() {
            cx.timed("dropout", Pass::Forward, || dropout::cpu::drop(&mut dropped, x, dropout))?;
        }
        Ok(dropped)
    }
}
