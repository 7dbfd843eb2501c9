//! The launches of `lora`: fused for bf16 activations, plain products for f32 ones.

pub mod decode;
mod f32;

use super::{BackwardLinear, Lora, LoraLinear, adapter_gradients};
use crate::cuda::flat_grid;
use crate::dropout::Dropout;
use crate::dropout::cuda::WITH_MASK;
use crate::gemm::cuda::{
    Accumulate, GROUP_HEADER, MAINLOOP, OperandLayout, PartialSums, SHAPE_CONSTANTS, SHAPES, TILES, Tile,
    TileVariant, choose, shared as tile_shared, sum, tile as tile_of, tile_variants,
};
use crate::gemm::group::{GROUP_SIZE as TARGETS, per_target, per_target_mut};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Error, Outs, Result, Tensor};

/// The parts of targets.
const TARGETS_HEADER: (&str, &str) = ("targets.cuh", include_str!("../targets.cuh"));

/// S.
const LOW_RANK: (&str, &str) = ("low_rank.cuh", include_str!("../low_rank.cuh"));

/// The words of a mask.
const MASK: (&str, &str) = ("mask.cuh", include_str!("../mask.cuh"));

/// [`MAINLOOP`], the selection of targets, S, and masks.
const WITH_TARGETS: &[(&str, &str)] =
    &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], GROUP_HEADER, TARGETS_HEADER, LOW_RANK, WITH_MASK[1], MASK];

/// [`WITH_TARGETS`] without masks.
const WITH_LOW_RANK: &[(&str, &str)] =
    &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], GROUP_HEADER, TARGETS_HEADER, LOW_RANK];

/// Forward: every y in one pass over the weights.
pub static FORWARD: Source = Source {
    name: "lora.cu",
    text: include_str!("../lora.cu"),
    headers: WITH_LOW_RANK,
    constants: CONSTANTS,
    variants: || tile_variants().into_iter().map(|v| v.variant(Variant::PLAIN)).collect(),
};

/// Backward: dx in one pass over the weights.
pub static DX: Source = Source {
    name: "dx.cu",
    text: include_str!("../dx.cu"),
    headers: WITH_TARGETS,
    constants: CONSTANTS,
    variants: || {
        let variants = tile_variants().into_iter().filter(|v| v.supports(OperandLayout::NN));
        variants.map(|v| v.variant(Variant::PLAIN)).collect()
    },
};

/// The narrow product of x forward: S.
pub static S: Source = Source {
    name: "s.cu",
    text: include_str!("../s.cu"),
    headers: WITH_TARGETS,
    constants: CONSTANTS,
    variants: || {
        let of = |aligned| s_shapes(aligned).iter().map(move |&first| (first, aligned));
        let groups = |(first, aligned)| (0..MAX_GROUPS).map(move |g| s_variant(first + g, aligned));
        [true, false].into_iter().flat_map(of).flat_map(groups).collect()
    },
};

/// The narrow product of x backward: dA.
pub static DA: Source = Source {
    name: "da.cu",
    text: include_str!("../da.cu"),
    headers: WITH_TARGETS,
    constants: CONSTANTS,
    variants: || {
        let groups = |aligned| (1..=MAX_GROUPS).map(move |groups| alignment(aligned).int("GROUPS", groups));
        [true, false].into_iter().flat_map(groups).collect()
    },
};

/// The narrow products over dy: dS and dB.
pub static STRIPS: Source = Source {
    name: "strips.cu",
    text: include_str!("../strips.cu"),
    headers: WITH_TARGETS,
    constants: CONSTANTS,
    variants: || [true, false].map(alignment).into(),
};

/// Sums of the parts of the narrow products of backward.
pub static FOLD: Source = Source {
    name: "fold.cu",
    text: include_str!("../fold.cu"),
    headers: &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], GROUP_HEADER, TARGETS_HEADER],
    constants: CONSTANTS,
    variants: || vec![Variant::PLAIN],
};

/// Dropout masks, and the elementwise kernels of f32 activations.
pub static DROPOUT: Source = Source {
    name: "dropout.cu",
    text: include_str!("../dropout.cu"),
    headers: &[WITH_MASK[0], WITH_MASK[1], MASK],
    constants: &[],
    variants: || vec![Variant::PLAIN],
};

/// The sizes below and the tiles' shapes.
const CONSTANTS: &[Define] = &[
    SHAPE_CONSTANTS[0],
    Define::int("TARGETS", TARGETS),
    Define::int("RANK_GROUP", RANK_GROUP),
    Define::int("STRIP_ROWS", STRIP_ROWS),
    Define::int("STRIP_COLUMNS", STRIP_COLUMNS),
    Define::int("STRIP_STAGES", STRIP_STAGES),
    Define::int("STRIP_THREADS", STRIP_THREADS),
    Define::int("MAX_GROUPS", MAX_GROUPS),
    Define::int("MASK_TILES", MASK_TILES),
    Define::int("DA_SHAPE", DA_SHAPE),
];

/// Columns of S and dS are allocated in groups of this size.
const RANK_GROUP: usize = 16;
/// Channels of x that one part of S sums.
const SLICE: usize = 512;
/// Rows that one part of dB or dA sums at least, where more parts would not fill more multiprocessors.
pub(super) const DB_RUN: usize = 192;
pub(super) const DA_RUN: usize = 512;
/// Multiprocessors for which runs of rows are cut, whatever the GPU has: bits do not depend on it.
const NOMINAL_MULTIPROCESSORS: usize = 132;
/// A strip of dy that a block of `lora_ds_db` processes: rows, columns, stages of the pipeline, threads.
const STRIP_ROWS: usize = 64;
const STRIP_COLUMNS: usize = 512;
const STRIP_STAGES: usize = 2;
const STRIP_THREADS: usize = 384;
/// Shared memory of `lora_ds_db`: all stages of dy and S, and B, in bf16.
const STRIP_SHARED: usize =
    2 * STRIP_STAGES * STRIP_ROWS * (STRIP_COLUMNS + RANK_GROUP) + 2 * STRIP_COLUMNS * RANK_GROUP;
/// Groups of columns that a block of `lora_s` or `lora_da` computes at most.
const MAX_GROUPS: usize = 4;
/// Tile shapes of `lora_s`, of 128, 64 and 160 rows, and of `lora_da`, with one group; those with more follow.
const S_SHAPES: [usize; 3] = [5, 16, 20];
const DA_SHAPE: usize = 9;
const _: () = assert!(SHAPES[S_SHAPES[2] + MAX_GROUPS - 1][1] == MAX_GROUPS * RANK_GROUP);
const _: () = assert!(da_tile(MAX_GROUPS).rows == MAX_GROUPS * RANK_GROUP);
/// Tiles of x whose words of the mask `lora_s` holds at the same time.
const MASK_TILES: usize = 4;

/// Tile shapes of `lora_s` with one group: those of ragged rows are of one height.
fn s_shapes(aligned: bool) -> &'static [usize] {
    if aligned { &S_SHAPES } else { &S_SHAPES[..1] }
}

/// Defines SHAPE and ALIGNED.
fn s_variant(shape: usize, aligned: bool) -> Variant {
    alignment(aligned).int("SHAPE", shape)
}

/// Returns the tile of `lora_s` that takes the least time for `rows` in `slices`: a wave takes as long as its rows, and as
/// copying A. No bit depends on it.
fn s_tile(rows: usize, slices: usize, groups: usize, aligned: bool, multiprocessors: usize) -> Tile {
    let time = |tile: &Tile| {
        let blocks = rows.div_ceil(tile.rows) * slices;
        blocks.div_ceil(multiprocessors) * (tile.rows + tile.columns)
    };
    let tiles = s_shapes(aligned).iter().map(|first| tile_of(first + groups - 1, 1, 1.0));
    tiles.min_by_key(time).expect("there are shapes")
}

/// Bytes of shared memory of `lora_s`: the stages, words of the mask, and what blocks of eight channels have of any token.
fn s_shared(tile: &Tile) -> usize {
    let depth = SHAPES[tile.shape][2];
    tile.shared + MASK_TILES * (tile.rows * depth / 8 + 64) + SLICE / depth * (2 * depth + 16)
}

/// A tile with three groups has room for four: lines of 48 columns do not divide into the threads of a block.
const fn da_tile(groups: usize) -> Tile {
    tile_of(DA_SHAPE + groups.next_power_of_two().ilog2() as usize, 1, 1.0)
}

/// Returns the rows that a part of dB or dA sums, `columns` of S beside each other, where each run of rows takes `blocks`.
/// It weighs how full the waves of [`NOMINAL_MULTIPROCESSORS`] are against parts, which are f32, written, read, and take a
/// launch to add: three times their bytes. The sizes alone decide.
pub(super) fn run_length(rows: usize, columns: usize, blocks: usize, least: usize) -> usize {
    let length = |runs: usize| rows.div_ceil(runs).next_multiple_of(STRIP_ROWS);
    let time = |runs: &usize| {
        let runs = rows.div_ceil(length(*runs));
        let all = runs * blocks;
        let waves = all.next_multiple_of(NOMINAL_MULTIPROCESSORS) as f64 / all as f64;
        waves + (3 * 2 * columns * runs) as f64 / rows as f64
    };
    let runs = (1..=rows.div_ceil(least)).min_by(|a, b| time(a).total_cmp(&time(b)));
    length(runs.unwrap_or(1))
}

/// Returns the columns that R of one adapter take in S.
pub(super) fn padded_rank(rank: usize) -> usize {
    rank.next_multiple_of(RANK_GROUP)
}

/// The columns of each target in S and dS: adjacent, in groups of 16.
pub(super) struct ColumnOffsets {
    /// First column of each target, and the end of the last.
    pub at: Vec<usize>,
}

impl ColumnOffsets {
    pub fn new(targets: &[LoraLinear]) -> Self {
        let mut at = vec![0];
        for target in targets {
            at.push(at[at.len() - 1] + padded_rank(target.rank()));
        }
        ColumnOffsets { at }
    }

    /// Total number of columns.
    fn pitch(&self) -> usize {
        self.at[self.at.len() - 1]
    }

    /// Groups of columns of a block, and the blocks that all columns take.
    fn blocks(&self) -> (usize, usize) {
        let all = self.pitch() / RANK_GROUP;
        let groups = all.min(MAX_GROUPS);
        (groups, all.div_ceil(groups))
    }
}

/// The context of one forward or backward, and the dropout and choice of rows.
pub(super) struct LoraPass<'a> {
    pub cx: &'a Ctx,
    pub cuda: &'a Cuda,
    pub dropout: Option<&'a Dropout>,
    /// (T, ⌈C/32⌉): a bit for every channel of every token that is kept; none without dropout, and before it is made.
    pub mask: Option<Tensor>,
    /// Scale of the kept channels.
    pub up: f32,
    /// (T): each row's adapter.
    pub adapter_ids: Option<&'a Tensor>,
}

impl<'a> LoraPass<'a> {
    fn new(op: &'a Lora, cx: &'a Ctx, cuda: &'a Cuda, mask: Option<Tensor>) -> Self {
        LoraPass {
            cx,
            cuda,
            dropout: op.dropout.as_ref(),
            mask,
            up: op.dropout.as_ref().map_or(1.0, |dropout| dropout.rate.keep_scale()),
            adapter_ids: op.adapter_ids.as_ref(),
        }
    }
}

/// The results of a forward pass.
pub(super) struct Forward {
    /// y of each target.
    pub outs: Outs,
    /// S of each target: in bf16 all are clones of one tensor with their columns side by side. Empty where it is not
    /// kept.
    pub s: Vec<Tensor>,
    /// The dropout mask, for the backward.
    pub mask: Option<Tensor>,
}

/// Computes y and S of each target.
pub(super) fn forward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    targets: &[LoraLinear],
) -> Result<Forward> {
    check_supported(x, targets)?;
    let mut run = LoraPass::new(op, cx, cuda, None);
    let rows = x.shape().as_matrix().0;
    let mut outs: Outs = targets.iter().map(|t| cx.empty([rows, t.w.shape()[0]], x.dtype())).collect();
    if x.dtype() == DType::F32 {
        run.mask = run.dropout.map(|dropout| mask(cx, cuda, dropout, x)).transpose()?;
        let s = f32::forward(&run, &mut outs, x, targets)?;
        return Ok(Forward { outs, s, mask: run.mask });
    }
    let layout = ColumnOffsets::new(targets);
    if let Some(turns) = &op.turns
        && cuda.branch("lora: few rows in one launch", decode::fits(x, targets))
    {
        decode::forward(&run, &mut outs, x, targets, (&layout, turns))?;
        return Ok(Forward { outs, s: Vec::new(), mask: None });
    }
    let (s, mask) = low_rank(&run, x, targets, &layout)?;
    let widths: Vec<usize> = targets.iter().map(|t| t.w.shape()[0]).collect();
    let aligned = targets.iter().all(|target| aligned(x, target));
    let tile = choose_tile(cuda, OperandLayout::NT, (rows, &widths), targets[0].w, aligned);
    adapted(&run, &mut outs, x, targets, (&s, &layout.at), (tile, aligned))?;
    Ok(Forward { outs, s: vec![s; targets.len()], mask })
}

/// Computes dA and dB of each target that has a dy, and dx if it is wanted, with the `mask` of forward.
pub(super) fn backward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    (x, mask): (&Tensor, Option<&Tensor>),
    used: &[BackwardLinear],
    wants_dx: bool,
) -> Result<(Vec<[Tensor; 2]>, Option<Tensor>)> {
    let run = LoraPass::new(op, cx, cuda, mask.cloned());
    let mut gradients: Vec<_> = used.iter().map(|u| adapter_gradients(cx, &u.target)).collect();
    let mut dx = wants_dx.then(|| cx.empty(*x.shape(), x.dtype()));
    match x.dtype() {
        DType::F32 => f32::backward(&run, &mut gradients, dx.as_mut(), x, used)?,
        _ => backward_bf16(&run, &mut gradients, dx.as_mut(), x, used)?,
    }
    Ok((gradients, dx))
}

/// Computes S (T, pitch) of all targets, and the dropout mask.
pub(super) fn low_rank(
    run: &LoraPass,
    x: &Tensor,
    targets: &[LoraLinear],
    layout: &ColumnOffsets,
) -> Result<(Tensor, Option<Tensor>)> {
    let LoraPass { cx, cuda, up, dropout, .. } = *run;
    let ((t, c), pitch, slices) =
        (x.shape().as_matrix(), layout.pitch(), x.shape().as_matrix().1.div_ceil(SLICE));
    let (groups, columns) = layout.blocks();
    let (adapters, aligned) = (targets[0].adapters(), c.is_multiple_of(8));
    let tile = s_tile(t, slices * columns, groups, aligned, cuda.properties().multiprocessors);
    let grid = Grid {
        // Rows of a block choose at most one adapter each.
        blocks: [t.div_ceil(tile.rows), columns * adapters.min(t).min(tile.rows), slices],
        threads: tile.threads,
        shared: s_shared(&tile),
    };
    let mut parts = cx.scratch([slices, t, pitch], DType::F32);
    let mut mask = dropout.map(|_| cx.empty([t, c.div_ceil(32)], DType::I32));
    let mut args = vec![Arg::Out(&mut parts), Arg::MaybeOut(mask.as_mut()), Arg::In(x)];
    args.extend([Arg::Maybe(dropout.map(|d| &d.tokens)), Arg::Maybe(run.adapter_ids)]);
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.a))));
    args.extend(per_target(1, targets, |t| Arg::I32(t.map_or(0, |t| t.rank() as i32))));
    args.extend(per_target(1, targets, |t| Arg::F32(t.map_or(0.0, |t| t.scale * up))));
    let drawn = dropout.map(|d| (d.key, d.rate.threshold(), d.first_channel));
    let (key, threshold, first) = drawn.unwrap_or((RngKey { seed: 0, step: 0, site: 0 }, 0, 0));
    args.extend([Arg::U64(key.seed), Arg::U32(key.step), Arg::U32(key.site), Arg::U32(threshold)]);
    args.extend([first, adapters, t, c, SLICE, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &S, "lora_s", s_variant(tile.shape, aligned), grid, &mut args)?;
    let mut s = cx.empty([t, pitch], x.dtype());
    let partial_sums = PartialSums { parts: &parts, at: 0, pitch, stride: t * pitch, slices, scale: 1.0 };
    sum(cuda, &mut s, (0, pitch), (t, pitch), Accumulate::Overwrite, partial_sums)?;
    Ok((s, mask))
}

/// True when rows of x, W and B are multiples of 16 bytes.
fn aligned(x: &Tensor, target: &LoraLinear) -> bool {
    x.shape().as_matrix().1.is_multiple_of(8) && target.rank().is_multiple_of(4)
}

/// Computes y = x Wᵀ + S Bᵀ of each target with the given tile shape; the target's columns of S begin at its `s_at`.
pub(super) fn adapted(
    run: &LoraPass,
    outs: &mut [Tensor],
    x: &Tensor,
    targets: &[LoraLinear],
    (s, s_at): (&Tensor, &[usize]),
    (tile, aligned): (Tile, bool),
) -> Result<()> {
    let ((t, c), w) = (x.shape().as_matrix(), targets[0].w);
    let widths: Vec<usize> = targets.iter().map(|target| target.w.shape()[0]).collect();
    let mut args = per_target_mut(1, outs);
    args.push(Arg::In(x));
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.w))));
    args.push(Arg::In(s));
    args.extend(per_target(1, targets, |t| Arg::Maybe(t.map(|t| t.b))));
    args.push(Arg::Maybe(run.adapter_ids));
    args.extend(per_target(1, &widths, |n| Arg::I32(n.map_or(0, |&n| n as i32))));
    args.extend(per_target(1, targets, |t| Arg::I32(t.map_or(0, |t| t.rank() as i32))));
    args.extend(per_target(1, &s_at[..targets.len()], |at| Arg::I32(at.map_or(0, |&at| at as i32))));
    args.extend([t, c, targets[0].adapters(), s.shape().as_matrix().1].map(|n| Arg::I32(n as i32)));
    let grid = grid(&tile, (t, &widths), w);
    start(run.cuda, &FORWARD, "lora", tile_variant(&tile, w, aligned), grid, &mut args)
}

/// Computes the backward in bf16: S and dS of all targets are one tensor each; dy is read once for dS and dB.
fn backward_bf16(
    run: &LoraPass,
    gradients: &mut [[Tensor; 2]],
    dx: Option<&mut Tensor>,
    x: &Tensor,
    used: &[BackwardLinear],
) -> Result<()> {
    let targets: Vec<LoraLinear> = used.iter().map(|u| u.target).collect();
    let layout = ColumnOffsets::new(&targets);
    let mut ds = run.cx.scratch([x.shape().as_matrix().0, layout.pitch()], x.dtype());
    let (mut all_da, mut all_db): (Vec<_>, Vec<_>) = gradients.iter_mut().map(|[da, db]| (da, db)).unzip();
    ds_and_db(run, &mut ds, &mut all_db, used)?;
    da(run, &mut all_da, (&ds, x), &targets, &layout)?;
    match dx {
        Some(dx) => input_gradient(run, dx, &ds, used),
        None => Ok(()),
    }
}

/// Computes dA = dSᵀ x̃ of each target.
fn da(
    run: &LoraPass,
    all_da: &mut [&mut Tensor],
    (ds, x): (&Tensor, &Tensor),
    targets: &[LoraLinear],
    layout: &ColumnOffsets,
) -> Result<()> {
    let LoraPass { cx, cuda, up, .. } = *run;
    let ((t, c), pitch) = (x.shape().as_matrix(), layout.pitch());
    let (groups, _) = layout.blocks();
    let tile = da_tile(groups);
    let run_rows = run_length(t, pitch, c.div_ceil(tile.columns) * pitch.div_ceil(tile.rows), DA_RUN);
    let runs = t.div_ceil(run_rows);
    let several = cuda.branch("lora: several runs of rows of dA", runs > 1);
    let mut parts = several.then(|| cx.scratch([runs, pitch, c], DType::F32));
    let grid = Grid {
        blocks: [c.div_ceil(tile.columns), pitch.div_ceil(tile.rows), runs],
        threads: tile.threads,
        // Four words of the mask for each row of x, of a tile more than there are stages.
        shared: tile.shared + 16 * SHAPES[tile.shape][2] * (SHAPES[tile.shape][3] + 1),
    };
    let ranks = || per_target(1, targets, |t| Arg::I32(t.map_or(0, |t| t.rank() as i32)));
    let mut args = vec![Arg::MaybeOut(parts.as_mut())];
    args.extend(per_target_mut(0, all_da.iter_mut().map(|t| &mut **t).filter(|_| !several)));
    args.extend([Arg::In(ds), Arg::In(x), Arg::Maybe(run.mask.as_ref())]);
    args.extend(ranks());
    args.push(Arg::F32(up));
    args.extend([t, c, run_rows, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &DA, "lora_da", alignment(c.is_multiple_of(8)).int("GROUPS", groups), grid, &mut args)?;
    drop(args);
    let Some(parts) = parts else { return Ok(()) };
    let values = targets.iter().map(|target| target.rank() * c.div_ceil(4)).sum();
    let mut args = per_target_mut(1, all_da.iter_mut().map(|t| &mut **t));
    args.push(Arg::In(&parts));
    args.extend(ranks());
    args.push(Arg::F32(up));
    args.extend([runs, pitch, c].map(|n| Arg::I32(n as i32)));
    start(cuda, &FOLD, "lora_fold_da", Variant::PLAIN, fold_grid(values), &mut args)
}

/// Computes dS = s dy B (T, pitch) of all targets, and dB = dyᵀ S of each.
fn ds_and_db(
    run: &LoraPass,
    ds: &mut Tensor,
    all_db: &mut [&mut Tensor],
    used: &[BackwardLinear],
) -> Result<()> {
    let LoraPass { cx, cuda, .. } = *run;
    let ((t, pitch), s) = (ds.shape().as_matrix(), used[0].s);
    let width = |u: &BackwardLinear| u.dy.shape().as_matrix().1;
    let (strips, padded) = (
        |u: &BackwardLinear| width(u).div_ceil(STRIP_COLUMNS),
        |u: &BackwardLinear| padded_rank(u.target.rank()),
    );
    let sum = |of: &dyn Fn(&BackwardLinear) -> usize| used.iter().map(of).sum::<usize>();
    let columns = used.iter().map(padded).max().unwrap_or(0);
    let run_rows = run_length(t, columns, sum(&strips), DB_RUN);
    let runs = t.div_ceil(run_rows);
    let mut ds_parts = cx.scratch([sum(&|u| strips(u) * t * padded(u))], DType::F32);
    let mut db_parts = cx.scratch([sum(&|u| runs * width(u) * padded(u))], DType::F32);
    let grid = Grid {
        blocks: [sum(&strips), runs, columns / RANK_GROUP],
        threads: STRIP_THREADS,
        shared: STRIP_SHARED,
    };
    let widths = || per_target(1, used, |u| Arg::I32(u.map_or(0, |u| width(u) as i32)));
    let ranks = || per_target(1, used, |u| Arg::I32(u.map_or(0, |u| u.target.rank() as i32)));
    let mut args = vec![Arg::Out(&mut ds_parts), Arg::Out(&mut db_parts), Arg::In(s)];
    args.extend(per_target(1, used, |u| Arg::Maybe(u.map(|u| u.dy))));
    args.extend(per_target(1, used, |u| Arg::Maybe(u.map(|u| u.target.b))));
    args.extend(widths().into_iter().chain(ranks()));
    args.extend(per_target(1, used, |u| Arg::I32(u.map_or(0, |u| u.s_at as i32))));
    args.extend([t, run_rows, s.shape().as_matrix().1].map(|n| Arg::I32(n as i32)));
    let aligned = used.iter().all(|u| width(u).is_multiple_of(8) && u.target.rank().is_multiple_of(4));
    start(cuda, &STRIPS, "lora_ds_db", alignment(aligned), grid, &mut args)?;
    drop(args);

    let values = t * pitch / 4 + sum(&|u| width(u) * u.target.rank().div_ceil(4));
    let mut args = vec![Arg::Out(ds)];
    args.extend(per_target_mut(1, all_db.iter_mut().map(|t| &mut **t)));
    args.extend([Arg::In(&ds_parts), Arg::In(&db_parts)]);
    args.extend(widths().into_iter().chain(ranks()));
    args.extend(per_target(1, used, |u| Arg::F32(u.map_or(0.0, |u| u.target.scale))));
    args.extend([t, run_rows, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &FOLD, "lora_fold_ds_db", Variant::PLAIN, fold_grid(values), &mut args)
}

/// Computes dx = mask/(1-p) ⊙ Σ dS A + Σ dy W over at least one target.
fn input_gradient(run: &LoraPass, dx: &mut Tensor, ds: &Tensor, used: &[BackwardLinear]) -> Result<()> {
    let LoraPass { cuda, up, .. } = *run;
    let w = used[0].target.w;
    let (t, c) = dx.shape().as_matrix();
    let width = |u: &BackwardLinear| u.dy.shape().as_matrix().1;
    let aligned = c.is_multiple_of(8) && used.iter().all(|u| width(u).is_multiple_of(8));
    let tile = choose_tile(cuda, OperandLayout::NN, (t, &[c]), w, aligned);
    let mut args = vec![Arg::Out(dx), Arg::Maybe(run.mask.as_ref()), Arg::In(ds)];
    args.extend(per_target(1, used, |u| Arg::Maybe(u.map(|u| u.target.a))));
    args.extend(per_target(1, used, |u| Arg::Maybe(u.map(|u| u.dy))));
    args.extend(per_target(1, used, |u| Arg::Maybe(u.map(|u| u.target.w))));
    args.extend(per_target(1, used, |u| Arg::I32(u.map_or(0, |u| u.target.rank() as i32))));
    args.extend(per_target(1, used, |u| Arg::I32(u.map_or(0, |u| width(u) as i32))));
    args.push(Arg::F32(up));
    args.extend([t, c, ds.shape().as_matrix().1].map(|n| Arg::I32(n as i32)));
    start(cuda, &DX, "lora_dx", tile_variant(&tile, w, aligned), grid(&tile, (t, &[c]), w), &mut args)
}

/// Returns the dropout mask (T, ⌈C/32⌉) i32: a bit for every channel of every token, 1 when it is kept.
fn mask(cx: &Ctx, cuda: &Cuda, dropout: &Dropout, x: &Tensor) -> Result<Tensor> {
    let (t, c) = x.shape().as_matrix();
    let mut mask = cx.empty([t, c.div_ceil(32)], DType::I32);
    let key = dropout.key;
    let args = &mut [
        Arg::Out(&mut mask),
        Arg::In(&dropout.tokens),
        Arg::U64(key.seed),
        Arg::U32(key.step),
        Arg::U32(key.site),
        Arg::U32(dropout.rate.threshold()),
        Arg::I32(dropout.first_channel as i32),
        Arg::I32(t as i32),
        Arg::I32(c as i32),
    ];
    start(cuda, &DROPOUT, "lora_mask", Variant::PLAIN, flat_grid(t * c.div_ceil(32), 1), args)?;
    Ok(mask)
}

fn choose_tile(
    cuda: &Cuda,
    form: OperandLayout,
    (m, widths): (usize, &[usize]),
    w: &Tensor,
    aligned: bool,
) -> Tile {
    match (aligned, w.dtype()) {
        (true, DType::BF16) => choose(form, m, widths, cuda.properties().multiprocessors),
        _ => TILES[2],
    }
}

fn tile_variant(tile: &Tile, w: &Tensor, aligned: bool) -> Variant {
    TileVariant { shape: tile.shape, w: w.dtype(), aligned }.variant(Variant::PLAIN)
}

/// Defines ALIGNED: 1 when rows are multiples of 16 bytes.
fn alignment(aligned: bool) -> Variant {
    Variant::PLAIN.int("ALIGNED", aligned as usize)
}

fn grid(tile: &Tile, (m, widths): (usize, &[usize]), w: &Tensor) -> Grid {
    let blocks = m.div_ceil(tile.rows) * widths.iter().map(|n| n.div_ceil(tile.columns)).sum::<usize>();
    Grid { blocks: [blocks, 1, 1], threads: tile.threads, shared: tile_shared(tile, w.dtype()) }
}

/// A thread for each of `values`, in blocks so small that a GPU's last wave of them is short.
fn fold_grid(values: usize) -> Grid {
    const THREADS: usize = 64;
    Grid::new(values.div_ceil(THREADS), THREADS)
}

/// Checks the requirements of the kernels beyond those of the op.
fn check_supported(x: &Tensor, targets: &[LoraLinear]) -> Result<()> {
    let odd = |t: &LoraLinear| {
        t.a.dtype() != DType::F32 || t.b.dtype() != DType::F32 || t.w.dtype() != targets[0].w.dtype()
    };
    if targets.len() > TARGETS || x.dtype() == DType::I32 || targets.iter().any(odd) {
        return Err(Error::new(format!(
            "x {x:?} with {} targets: on CUDA up to {TARGETS} share an x, with W of one type, and A and B are F32",
            targets.len()
        )));
    }
    Ok(())
}

fn start(
    cuda: &Cuda,
    source: &'static Source,
    kernel: &str,
    variant: Variant,
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(source, variant, kernel)?;
    // SAFETY: the op has checked that x, W, A and B fit together; the other tensors were made here, in the shapes
    // that the kernels' parameters state; shared memory is what the tiles take.
    unsafe { kernel.launch(grid, args) }
}
