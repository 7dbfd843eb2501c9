//! Few rows in one launch.

use super::{CONSTANTS, ColumnOffsets, LoraPass, RANK_GROUP, SLICE, WITH_LOW_RANK, aligned, start};
use crate::gemm::cuda::{OperandLayout, TILES, choose};
use crate::gemm::group::{per_target, per_target_mut};
use crate::lora::{LoraLinear, Turns};
use codelsi_engine::cuda::{Arg, Grid, Source, Variant};
use codelsi_engine::{DType, Result, Tensor};

/// Forward of few rows, with S.
pub static DECODE: Source = Source {
    name: "lora/decode.cu",
    text: include_str!("../decode.cu"),
    headers: WITH_LOW_RANK,
    constants: CONSTANTS,
    variants: || TILES.iter().filter(|tile| tile.rows <= MOST_ROWS).map(|tile| variant(tile.shape)).collect(),
};

/// Rows of the tallest of the tiles of few rows.
const MOST_ROWS: usize = 64;

/// Defines SHAPE.
fn variant(shape: usize) -> Variant {
    Variant::PLAIN.int("SHAPE", shape)
}

/// True if `decode.cu` makes y of x and `targets`.
pub(super) fn fits(x: &Tensor, targets: &[LoraLinear]) -> bool {
    let whole = |t: &LoraLinear| aligned(x, t) && t.w.dtype() == DType::BF16;
    x.shape().as_matrix().0 <= MOST_ROWS && targets.iter().all(whole)
}

/// Computes y of each target.
pub(super) fn forward(
    run: &LoraPass,
    outs: &mut [Tensor],
    x: &Tensor,
    targets: &[LoraLinear],
    (layout, turns): (&ColumnOffsets, &Turns),
) -> Result<()> {
    let LoraPass { cx, cuda, .. } = *run;
    let ((t, c), pitch, adapters) = (x.shape().as_matrix(), layout.pitch(), targets[0].adapters());
    let (slices, widths) = (c.div_ceil(SLICE), targets.iter().map(|t| t.w.shape()[0]).collect::<Vec<_>>());
    let tile = choose(OperandLayout::NT, t, &widths, cuda.properties().multiprocessors);
    let makers = slices * pitch.div_ceil(tile.columns / RANK_GROUP * RANK_GROUP) * adapters.min(t);
    let tiles = widths.iter().map(|n| n.div_ceil(tile.columns)).sum::<usize>();
    let grid = Grid { blocks: [makers + tiles, 1, 1], threads: tile.threads, shared: tile.shared };
    let mut parts = cx.scratch([slices, t, pitch], DType::F32);
    let mut turns = turns.lock();
    let mut args = per_target_mut(1, outs);
    args.extend([Arg::InOut(&mut parts), Arg::InOut(&mut turns), Arg::In(x)]);
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.w))));
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.a))));
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.b))));
    args.push(Arg::Maybe(run.adapter_ids));
    args.extend(per_target(1, &widths, |n| Arg::I32(n.map_or(0, |&n| n as i32))));
    args.extend(per_target(1, targets, |t| Arg::I32(t.map_or(0, |t| t.rank() as i32))));
    args.extend(per_target(1, targets, |t| Arg::F32(t.map_or(0.0, |t| t.scale))));
    args.extend([t, c, adapters, SLICE, pitch, makers].map(|n| Arg::I32(n as i32)));
    start(cuda, &DECODE, "lora_decode", variant(tile.shape), grid, &mut args)
}
