//! The launches of `lora`: fused for bf16 activations, plain products for f32 ones.

mod f32;

use super::{BackwardLinear, Lora, LoraLinear, adapter_gradients};
use crate::cuda::flat_grid;
use crate::dropout::Dropout;
use crate::dropout::cuda::WITH_MASK;
use crate::gemm::cuda::{
    MAINLOOP, OperandLayout, PartialSums, SHAPE_CONSTANTS, TILES, Tile, TileVariant, choose,
    shared as tile_shared, sum, tile as tile_of, tile_variants,
};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Error, Outs, Result, Tensor};

/// [`MAINLOOP`] and the selection of targets.
const WITH_TARGETS: &[(&str, &str)] =
    &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], ("targets.cuh", include_str!("../targets.cuh"))];

/// Forward: y in one pass over W.
pub static FORWARD: Source = Source {
    name: "lora.cu",
    text: include_str!("../lora.cu"),
    headers: MAINLOOP,
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

/// The narrow products: S, dS, dB and dA.
pub static NARROW: Source = Source {
    name: "narrow.cu",
    text: include_str!("../narrow.cu"),
    headers: WITH_TARGETS,
    constants: CONSTANTS,
    variants: || [true, false].map(alignment).into(),
};

/// Dropout masks, and the elementwise kernels of f32 activations.
pub static DROPOUT: Source = Source {
    name: "dropout.cu",
    text: include_str!("../dropout.cu"),
    headers: WITH_MASK,
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
];

/// Linears of one launch.
const TARGETS: usize = 4;
/// Columns of S and dS are allocated in groups of this size.
const RANK_GROUP: usize = 16;
/// Channels of x that one part of S sums.
const SLICE: usize = 512;
/// Rows that one part of dB or dA sums.
const RUN: usize = 512;
/// A strip of dy that a block of `lora_ds_db` processes: rows, columns, stages of the pipeline, threads.
const STRIP_ROWS: usize = 64;
const STRIP_COLUMNS: usize = 256;
const STRIP_STAGES: usize = 2;
const STRIP_THREADS: usize = 256;
/// Shared memory of `lora_ds_db`: all stages of dy and S, and B, in bf16.
const STRIP_SHARED: usize =
    2 * STRIP_STAGES * STRIP_ROWS * (STRIP_COLUMNS + RANK_GROUP) + 2 * STRIP_COLUMNS * RANK_GROUP;
/// Tiles of `lora_s`, whose right operand is f32, and of `lora_da`.
const S_TILE: Tile = tile_of(5, 1, 1.0);
const DA_TILE: Tile = tile_of(6, 1, 1.0);
const _: () = assert!(S_TILE.columns == RANK_GROUP && DA_TILE.rows == RANK_GROUP);

/// Returns the columns that R of one adapter take in S.
pub(super) fn padded_rank(rank: usize) -> usize {
    rank.next_multiple_of(RANK_GROUP)
}

/// The columns of each target in S and dS: adjacent, in groups of 16.
pub(super) struct ColumnOffsets {
    /// First column of each target, and the end of the last.
    pub at: Vec<usize>,
    adapters: usize,
}

impl ColumnOffsets {
    pub fn new(targets: &[LoraLinear]) -> Self {
        let adapters = targets.first().map_or(1, LoraLinear::adapters);
        let mut at = vec![0];
        for target in targets {
            at.push(at[at.len() - 1] + adapters * padded_rank(target.rank()));
        }
        ColumnOffsets { at, adapters }
    }

    /// Total number of columns.
    fn pitch(&self) -> usize {
        self.at[self.at.len() - 1]
    }
}

/// The context of one forward or backward, and the dropout and choice of rows.
pub(super) struct LoraPass<'a> {
    pub cx: &'a Ctx,
    pub cuda: &'a Cuda,
    /// (T, ⌈C/32⌉): a bit for every channel of every token that is kept; none without dropout.
    pub mask: Option<Tensor>,
    /// Scale of the kept channels.
    pub up: f32,
    /// (T): each row's adapter.
    pub adapter_ids: Option<&'a Tensor>,
}

impl<'a> LoraPass<'a> {
    fn new(op: &'a Lora, cx: &'a Ctx, cuda: &'a Cuda, x: &Tensor) -> Result<Self> {
        let mask = op.dropout.as_ref().map(|dropout| mask(cx, cuda, dropout, x)).transpose()?;
        Ok(LoraPass {
            cx,
            cuda,
            mask,
            up: op.dropout.as_ref().map_or(1.0, |dropout| dropout.rate.keep_scale()),
            adapter_ids: op.adapter_ids.as_ref(),
        })
    }
}

/// Computes y and S of each target: in bf16 all S are clones of one tensor with their columns side by side.
pub(super) fn forward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    targets: &[LoraLinear],
) -> Result<(Outs, Vec<Tensor>)> {
    check_supported(x, targets)?;
    let run = LoraPass::new(op, cx, cuda, x)?;
    let rows = x.shape().as_matrix().0;
    let mut outs: Outs = targets.iter().map(|t| cx.empty([rows, t.w.shape()[0]], x.dtype())).collect();
    if x.dtype() == DType::F32 {
        let s = f32::forward(&run, &mut outs, x, targets)?;
        return Ok((outs, s));
    }
    let layout = ColumnOffsets::new(targets);
    let s = low_rank(&run, x, targets, &layout)?;
    for ((y, target), &at) in outs.iter_mut().zip(targets).zip(&layout.at) {
        let tile = choose_tile(cuda, OperandLayout::NT, y, target.w, aligned(x, target));
        adapted(&run, y, x, target, (&s, at), tile)?;
    }
    Ok((outs, vec![s; targets.len()]))
}

/// Computes dA and dB of each target that has a dy, and dx if it is wanted.
pub(super) fn backward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    used: &[BackwardLinear],
    wants_dx: bool,
) -> Result<(Vec<[Tensor; 2]>, Option<Tensor>)> {
    let run = LoraPass::new(op, cx, cuda, x)?;
    let mut gradients: Vec<_> = used.iter().map(|u| adapter_gradients(cx, &u.target)).collect();
    let mut dx = wants_dx.then(|| cx.empty(*x.shape(), x.dtype()));
    match x.dtype() {
        DType::F32 => f32::backward(&run, &mut gradients, dx.as_mut(), x, used)?,
        _ => backward_bf16(&run, &mut gradients, dx.as_mut(), x, used)?,
    }
    Ok((gradients, dx))
}

/// Computes S (T, pitch) of all targets.
pub(super) fn low_rank(
    run: &LoraPass,
    x: &Tensor,
    targets: &[LoraLinear],
    layout: &ColumnOffsets,
) -> Result<Tensor> {
    let LoraPass { cx, cuda, up, .. } = *run;
    let ((t, c), pitch) = (x.shape().as_matrix(), layout.pitch());
    let slices = c.div_ceil(SLICE);
    let mut parts = cx.scratch([slices, t, pitch], DType::F32);
    let grid = Grid {
        blocks: [t.div_ceil(S_TILE.rows), pitch / RANK_GROUP, slices],
        threads: S_TILE.threads,
        shared: tile_shared(&S_TILE, DType::F32),
    };
    let mut args =
        vec![Arg::Out(&mut parts), Arg::In(x), Arg::Maybe(run.mask.as_ref()), Arg::Maybe(run.adapter_ids)];
    args.extend(per_target(targets, |t| Arg::Maybe(t.map(|t| t.a))));
    args.extend(per_target(targets, |t| Arg::I32(t.map_or(0, |t| t.rank() as i32))));
    args.extend(per_target(targets, |t| Arg::F32(t.map_or(0.0, |t| t.scale * up))));
    args.extend([layout.adapters, t, c, SLICE, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &NARROW, "lora_s", alignment(c.is_multiple_of(8)), grid, &mut args)?;
    let mut s = cx.empty([t, pitch], x.dtype());
    let partial_sums = PartialSums { parts: &parts, at: 0, pitch, stride: t * pitch, slices, scale: 1.0 };
    sum(cuda, &mut s, (0, pitch), (t, pitch), false, partial_sums)?;
    Ok(s)
}

/// True when rows of x, W and B are multiples of 16 bytes.
fn aligned(x: &Tensor, target: &LoraLinear) -> bool {
    x.shape().as_matrix().1.is_multiple_of(8) && target.rank().is_multiple_of(4)
}

/// Computes y = x Wᵀ + S Bᵀ with the given tile shape.
pub(super) fn adapted(
    run: &LoraPass,
    y: &mut Tensor,
    x: &Tensor,
    target: &LoraLinear,
    (s, s_at): (&Tensor, usize),
    tile: Tile,
) -> Result<()> {
    let ((t, c), (n, _), rank) = (x.shape().as_matrix(), target.w.shape().as_matrix(), target.rank());
    let sizes = [t, n, c, rank, target.adapters(), s.shape().as_matrix().1, s_at];
    let mut args = vec![
        Arg::Out(y),
        Arg::In(x),
        Arg::In(target.w),
        Arg::In(s),
        Arg::In(target.b),
        Arg::Maybe(run.adapter_ids),
    ];
    args.extend(sizes.map(|n| Arg::I32(n as i32)));
    let variant = tile_variant(&tile, target.w, aligned(x, target));
    start(run.cuda, &FORWARD, "lora", variant, grid(&tile, (t, n), target.w), &mut args)
}

/// Computes the backward in bf16: S and dS of all targets are one tensor each; dy is read once for dS and dB.
fn backward_bf16(
    run: &LoraPass,
    gradients: &mut [[Tensor; 2]],
    dx: Option<&mut Tensor>,
    x: &Tensor,
    used: &[BackwardLinear],
) -> Result<()> {
    let LoraPass { cx, cuda, up, .. } = *run;
    let (t, c) = x.shape().as_matrix();
    let targets: Vec<LoraLinear> = used.iter().map(|u| u.target).collect();
    let layout = ColumnOffsets::new(&targets);
    let (pitch, runs) = (layout.pitch(), t.div_ceil(RUN));
    let mut ds = cx.scratch([t, pitch], x.dtype());
    for ((u, [_, db]), &at) in used.iter().zip(&mut *gradients).zip(&layout.at) {
        ds_and_db(run, (&mut ds, at), db, u)?;
    }
    let mut parts = cx.scratch([runs, pitch, c], DType::F32);
    let grid = Grid {
        blocks: [c.div_ceil(DA_TILE.columns), pitch / RANK_GROUP, runs],
        threads: DA_TILE.threads,
        shared: DA_TILE.shared,
    };
    let mut args = vec![Arg::Out(&mut parts), Arg::In(&ds), Arg::In(x), Arg::Maybe(run.mask.as_ref())];
    args.extend([t, c, RUN, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &NARROW, "lora_da", alignment(c.is_multiple_of(8)), grid, &mut args)?;
    for ((target, [da, _]), &at) in targets.iter().zip(gradients).zip(&layout.at) {
        let partial_sums =
            PartialSums { parts: &parts, at: at * c, pitch: c, stride: pitch * c, slices: runs, scale: up };
        sum(cuda, da, (0, c), (target.rank(), c), false, partial_sums)?;
    }
    match dx {
        Some(dx) => input_gradient(run, dx, &ds, used),
        None => Ok(()),
    }
}

/// Computes dS = s dy B into `ds` from column `at` on, and dB = dyᵀ S.
fn ds_and_db(
    run: &LoraPass,
    (ds, at): (&mut Tensor, usize),
    db: &mut Tensor,
    u: &BackwardLinear,
) -> Result<()> {
    let LoraPass { cx, cuda, .. } = *run;
    let ((t, n), rank) = (u.dy.shape().as_matrix(), u.target.rank());
    let padded = padded_rank(rank);
    let (strips, runs) = (n.div_ceil(STRIP_COLUMNS), t.div_ceil(RUN));
    let mut ds_parts = cx.scratch([strips, t, padded], DType::F32);
    let mut db_parts = cx.scratch([runs, n, padded], DType::F32);
    let grid =
        Grid { blocks: [strips, runs, padded / RANK_GROUP], threads: STRIP_THREADS, shared: STRIP_SHARED };
    let mut args = vec![
        Arg::Out(&mut ds_parts),
        Arg::Out(&mut db_parts),
        Arg::In(u.dy),
        Arg::In(u.target.b),
        Arg::In(u.s),
    ];
    args.extend([t, n, rank, RUN, u.s.shape().as_matrix().1, u.s_at].map(|n| Arg::I32(n as i32)));
    let aligned = n.is_multiple_of(8) && rank.is_multiple_of(4);
    start(cuda, &NARROW, "lora_ds_db", alignment(aligned), grid, &mut args)?;
    let pitch = ds.shape().as_matrix().1;
    let scale = u.target.scale;
    let of_ds =
        PartialSums { parts: &ds_parts, at: 0, pitch: padded, stride: t * padded, slices: strips, scale };
    sum(cuda, ds, (at, pitch), (t, padded), false, of_ds)?;
    let of_db =
        PartialSums { parts: &db_parts, at: 0, pitch: padded, stride: n * padded, slices: runs, scale: 1.0 };
    sum(cuda, db, (0, rank), (n, rank), false, of_db)
}

/// Computes dx = mask/(1-p) ⊙ Σ dS A + Σ dy W over at least one target.
fn input_gradient(run: &LoraPass, dx: &mut Tensor, ds: &Tensor, used: &[BackwardLinear]) -> Result<()> {
    let LoraPass { cuda, up, .. } = *run;
    let w = used[0].target.w;
    let (t, c) = dx.shape().as_matrix();
    let width = |u: &BackwardLinear| u.dy.shape().as_matrix().1;
    let aligned = c.is_multiple_of(8) && used.iter().all(|u| width(u).is_multiple_of(8));
    let tile = choose_tile(cuda, OperandLayout::NN, dx, w, aligned);
    let mut args = vec![Arg::Out(dx), Arg::Maybe(run.mask.as_ref()), Arg::In(ds)];
    args.extend(per_target(used, |u| Arg::Maybe(u.map(|u| u.target.a))));
    args.extend(per_target(used, |u| Arg::Maybe(u.map(|u| u.dy))));
    args.extend(per_target(used, |u| Arg::Maybe(u.map(|u| u.target.w))));
    args.extend(per_target(used, |u| Arg::I32(u.map_or(0, |u| u.target.rank() as i32))));
    args.extend(per_target(used, |u| Arg::I32(u.map_or(0, |u| width(u) as i32))));
    args.push(Arg::F32(up));
    args.extend([t, c, ds.shape().as_matrix().1].map(|n| Arg::I32(n as i32)));
    start(cuda, &DX, "lora_dx", tile_variant(&tile, w, aligned), grid(&tile, (t, c), w), &mut args)
}

/// Returns the dropout mask (T, ⌈C/32⌉) i32: a bit for every channel of every token, 1 when it is kept.
fn mask(cx: &Ctx, cuda: &Cuda, dropout: &Dropout, x: &Tensor) -> Result<Tensor> {
    let (t, c) = x.shape().as_matrix();
    let mut mask = cx.scratch([t, c.div_ceil(32)], DType::I32);
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

/// Returns [`TARGETS`] arguments, one of each target and null for missing targets.
fn per_target<'a, T>(all: &'a [T], of: impl Fn(Option<&'a T>) -> Arg<'a>) -> Vec<Arg<'a>> {
    let mut args: Vec<Arg> = (0..TARGETS).map(|i| of(all.get(i))).collect();
    // The first target is never missing.
    if let Arg::Maybe(Some(first)) = args[0] {
        args[0] = Arg::In(first);
    }
    args
}

fn choose_tile(cuda: &Cuda, form: OperandLayout, y: &Tensor, w: &Tensor, aligned: bool) -> Tile {
    let (m, n) = y.shape().as_matrix();
    match (aligned, w.dtype()) {
        (true, DType::BF16) => choose(form, m, n, cuda.properties().multiprocessors),
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

fn grid(tile: &Tile, (m, n): (usize, usize), w: &Tensor) -> Grid {
    let blocks = m.div_ceil(tile.rows) * n.div_ceil(tile.columns);
    Grid { blocks: [blocks, 1, 1], threads: tile.threads, shared: tile_shared(tile, w.dtype()) }
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
