//! The launches of `lora`: fused for bf16 activations; for f32 ones, plain products in the CPU twin's order.

use super::{Dropout, Lora, Target, Used, adapter_gradients};
use crate::cuda::{HEADERS, element, flat_grid};
use crate::gemm::cuda::{
    Form, MAINLOOP, Part, Slices, TILES, Tile, choose, multiply, shared as tile_shared, sum,
};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Ctx, DType, Error, Outs, Result, Tensor};

/// [`MAINLOOP`] and the picking of targets.
const WITH_TARGETS: &[(&str, &str)] =
    &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], ("targets.cuh", include_str!("targets.cuh"))];

/// y in one pass over W.
pub static FORWARD: Source = Source {
    name: "lora.cu",
    text: include_str!("lora.cu"),
    headers: MAINLOOP,
    variants: &[
        "SHAPE=0 W=bf16 ALIGNED=1",
        "SHAPE=1 W=bf16 ALIGNED=1",
        "SHAPE=2 W=bf16 ALIGNED=1",
        "SHAPE=3 W=bf16 ALIGNED=1",
        "SHAPE=4 W=bf16 ALIGNED=1",
        "SHAPE=2 W=float ALIGNED=1",
        "SHAPE=2 W=bf16 ALIGNED=0",
        "SHAPE=2 W=float ALIGNED=0",
    ],
};

/// dx in one pass over the weights.
pub static DX: Source = Source {
    name: "dx.cu",
    text: include_str!("dx.cu"),
    headers: WITH_TARGETS,
    variants: &[
        "SHAPE=2 W=bf16 ALIGNED=1",
        "SHAPE=3 W=bf16 ALIGNED=1",
        "SHAPE=4 W=bf16 ALIGNED=1",
        "SHAPE=2 W=float ALIGNED=1",
        "SHAPE=2 W=bf16 ALIGNED=0",
        "SHAPE=2 W=float ALIGNED=0",
    ],
};

/// S, dS, dB and dA.
pub static NARROW: Source = Source {
    name: "narrow.cu",
    text: include_str!("narrow.cu"),
    headers: WITH_TARGETS,
    variants: &["ALIGNED=1", "ALIGNED=0"],
};

/// Masks, and what f32 activations need.
pub static DROPOUT: Source =
    Source { name: "dropout.cu", text: include_str!("dropout.cu"), headers: HEADERS, variants: &[""] };

/// Linears of one launch.
const TARGETS: usize = 4;
/// Columns of S and dS are handed out by as many.
const GROUP: usize = 16;
/// Channels of x that one part of S sums.
const SLICE: usize = 512;
/// Rows that one part of dB or dA sums.
const RUN: usize = 512;
/// Columns of dy in a block of `lora_ds_db`, and its shared memory: two stages of dy and S, and B.
const STRIP: usize = 256;
const STRIP_SHARED: usize = 2 * 2 * 64 * (STRIP + GROUP) + 2 * STRIP * GROUP;
/// Shapes 5 and 6 of `mainloop.cuh`; the right operand of the first is f32.
const S_ROWS: usize = 128;
const S_SHARED: usize = 3 * 64 * (2 * S_ROWS + 4 * GROUP);
const DA_COLUMNS: usize = 128;
const DA_SHARED: usize = 3 * 64 * 2 * (GROUP + DA_COLUMNS);

/// Columns that R of one adapter take in S.
pub(super) fn padded(rank: usize) -> usize {
    rank.next_multiple_of(GROUP)
}

/// Where each target's columns lie in S and dS, side by side in groups of 16.
pub(super) struct Layout {
    /// First column of each target, and the end of the last.
    pub at: Vec<usize>,
    adapters: usize,
}

impl Layout {
    pub fn new(targets: &[Target]) -> Self {
        let adapters = targets.first().map_or(1, Target::adapters);
        let mut at = vec![0];
        for target in targets {
            at.push(at[at.len() - 1] + adapters * padded(target.rank()));
        }
        Layout { at, adapters }
    }

    /// Columns in all.
    fn pitch(&self) -> usize {
        self.at[self.at.len() - 1]
    }
}

/// y of each target, and S of each: in bf16 all are clones of the one tensor that holds them side by side.
pub(super) fn forward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    targets: &[Target],
) -> Result<(Outs, Vec<Tensor>)> {
    supported(x, targets)?;
    let mask = op.dropout.as_ref().map(|dropout| mask(cx, cuda, dropout, x)).transpose()?;
    let rows = x.shape().as_matrix().0;
    let mut outs: Outs =
        targets.iter().map(|t| cx.empty([rows, t.w.shape().as_matrix().0], x.dtype())).collect();
    if x.dtype() == DType::F32 {
        let s = forward_f32(op, cx, cuda, &mut outs, x, targets, mask.as_ref())?;
        return Ok((outs, s));
    }
    let layout = Layout::new(targets);
    let s = low_rank(op, cx, cuda, x, targets, &layout, mask.as_ref())?;
    for ((y, target), &at) in outs.iter_mut().zip(targets).zip(&layout.at) {
        let tile = tile(cuda, Form::NT, y, target.w, aligned(x, target));
        adapted(cuda, y, x, target, (&s, at), op.choice.as_ref(), tile)?;
    }
    Ok((outs, vec![s; targets.len()]))
}

/// S (T, pitch) of all targets.
pub(super) fn low_rank(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    targets: &[Target],
    layout: &Layout,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let ((t, c), pitch) = (x.shape().as_matrix(), layout.pitch());
    let slices = c.div_ceil(SLICE);
    let up = op.dropout.as_ref().map_or(1.0, Dropout::up);
    let mut parts = cx.scratch([slices, t, pitch], DType::F32);
    let grid =
        Grid { blocks: [t.div_ceil(S_ROWS), pitch / GROUP, slices], threads: 128, shared: S_SHARED };
    let mut args = vec![Arg::Out(&mut parts), Arg::In(x), Arg::Maybe(mask), Arg::Maybe(op.choice.as_ref())];
    args.extend(each(targets, Arg::Maybe(None), |t| Arg::Maybe(Some(t.a))));
    args.extend(each(targets, Arg::I32(0), |t| Arg::I32(t.rank() as i32)));
    args.extend(each(targets, Arg::F32(0.0), |t| Arg::F32(t.scale * up)));
    args.extend([layout.adapters, t, c, SLICE, pitch].map(|n| Arg::I32(n as i32)));
    let variant = format!("ALIGNED={}", c.is_multiple_of(8) as usize);
    start(cuda, &NARROW, "lora_s", &variant, grid, &mut args)?;
    let mut s = cx.empty([t, pitch], x.dtype());
    let whole = Slices { parts: &parts, at: 0, pitch, stride: t * pitch, slices, scale: 1.0 };
    sum(cuda, &mut s, (0, pitch), (t, pitch), false, whole)?;
    Ok(s)
}

/// Whether rows of x, W and B are whole chunks of 16 bytes.
fn aligned(x: &Tensor, target: &Target) -> bool {
    x.shape().as_matrix().1.is_multiple_of(8) && target.rank().is_multiple_of(4)
}

/// y = x Wᵀ + S Bᵀ, by tiles of one's choice.
pub(super) fn adapted(
    cuda: &Cuda,
    y: &mut Tensor,
    x: &Tensor,
    target: &Target,
    (s, s_at): (&Tensor, usize),
    choice: Option<&Tensor>,
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
        Arg::Maybe(choice),
    ];
    args.extend(sizes.map(|n| Arg::I32(n as i32)));
    let variant = variant(&tile, target.w, aligned(x, target));
    start(cuda, &FORWARD, "lora", &variant, grid(&tile, (t, n), target.w), &mut args)
}

/// dA and dB of each target that has a dy, and dx if it is wanted.
pub(super) fn backward(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    x: &Tensor,
    used: &[Used],
    wants_dx: bool,
) -> Result<(Vec<[Tensor; 2]>, Option<Tensor>)> {
    let mut gradients: Vec<_> = used.iter().map(|u| adapter_gradients(cx, &u.target)).collect();
    let mask = op.dropout.as_ref().map(|dropout| mask(cx, cuda, dropout, x)).transpose()?;
    let mut dx = wants_dx.then(|| cx.empty(*x.shape(), x.dtype()));
    match x.dtype() {
        DType::F32 => backward_f32(op, cx, cuda, &mut gradients, dx.as_mut(), x, used, mask.as_ref())?,
        _ => backward_bf16(op, cx, cuda, &mut gradients, dx.as_mut(), x, used, mask.as_ref())?,
    }
    Ok((gradients, dx))
}

/// S and dS of all targets are one tensor each; dy is read once for dS and dB.
#[allow(clippy::too_many_arguments)]
fn backward_bf16(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    gradients: &mut [[Tensor; 2]],
    dx: Option<&mut Tensor>,
    x: &Tensor,
    used: &[Used],
    mask: Option<&Tensor>,
) -> Result<()> {
    let ((t, c), up) = (x.shape().as_matrix(), op.dropout.as_ref().map_or(1.0, Dropout::up));
    let targets: Vec<Target> = used.iter().map(|u| u.target).collect();
    let layout = Layout::new(&targets);
    let (pitch, runs) = (layout.pitch(), t.div_ceil(RUN));
    let mut ds = cx.scratch([t, pitch], x.dtype());
    for ((u, [_, db]), &at) in used.iter().zip(&mut *gradients).zip(&layout.at) {
        ds_and_db(cx, cuda, (&mut ds, at), db, u)?;
    }
    let mut parts = cx.scratch([runs, pitch, c], DType::F32);
    let grid =
        Grid { blocks: [c.div_ceil(DA_COLUMNS), pitch / GROUP, runs], threads: 128, shared: DA_SHARED };
    let mut args = vec![Arg::Out(&mut parts), Arg::In(&ds), Arg::In(x), Arg::Maybe(mask)];
    args.extend([t, c, RUN, pitch].map(|n| Arg::I32(n as i32)));
    start(cuda, &NARROW, "lora_da", &format!("ALIGNED={}", c.is_multiple_of(8) as usize), grid, &mut args)?;
    for ((target, [da, _]), &at) in targets.iter().zip(gradients).zip(&layout.at) {
        let whole = Slices { parts: &parts, at: at * c, pitch: c, stride: pitch * c, slices: runs, scale: up };
        sum(cuda, da, (0, c), (target.rank(), c), false, whole)?;
    }
    match dx {
        Some(dx) => input_gradient(cuda, dx, &ds, mask, up, used),
        None => Ok(()),
    }
}

/// dS = s dy B into `ds` from column `at` on, and dB = dyᵀ S.
fn ds_and_db(
    cx: &Ctx,
    cuda: &Cuda,
    (ds, at): (&mut Tensor, usize),
    db: &mut Tensor,
    u: &Used,
) -> Result<()> {
    let ((t, n), rank) = (u.dy.shape().as_matrix(), u.target.rank());
    let padded = padded(rank);
    let (strips, runs) = (n.div_ceil(STRIP), t.div_ceil(RUN));
    let mut ds_parts = cx.scratch([strips, t, padded], DType::F32);
    let mut db_parts = cx.scratch([runs, n, padded], DType::F32);
    let grid = Grid { blocks: [strips, runs, padded / GROUP], threads: 256, shared: STRIP_SHARED };
    let mut args = vec![
        Arg::Out(&mut ds_parts),
        Arg::Out(&mut db_parts),
        Arg::In(u.dy),
        Arg::In(u.target.b),
        Arg::In(u.s),
    ];
    args.extend([t, n, rank, RUN, u.s.shape().as_matrix().1, u.s_at].map(|n| Arg::I32(n as i32)));
    let aligned = n.is_multiple_of(8) && rank.is_multiple_of(4);
    start(cuda, &NARROW, "lora_ds_db", &format!("ALIGNED={}", aligned as usize), grid, &mut args)?;
    let pitch = ds.shape().as_matrix().1;
    let scale = u.target.scale;
    let of_ds =
        Slices { parts: &ds_parts, at: 0, pitch: padded, stride: t * padded, slices: strips, scale };
    sum(cuda, ds, (at, pitch), (t, padded), false, of_ds)?;
    let of_db =
        Slices { parts: &db_parts, at: 0, pitch: padded, stride: n * padded, slices: runs, scale: 1.0 };
    sum(cuda, db, (0, rank), (n, rank), false, of_db)
}

/// dx = mask/(1-p) ⊙ Σ dS A + Σ dy W.
fn input_gradient(
    cuda: &Cuda,
    dx: &mut Tensor,
    ds: &Tensor,
    mask: Option<&Tensor>,
    up: f32,
    used: &[Used],
) -> Result<()> {
    let [Used { target: Target { w, .. }, .. }, ..] = used else { return Err(Error::new("dx of no output")) };
    let (t, c) = dx.shape().as_matrix();
    let widths = |u: &Used| u.dy.shape().as_matrix().1;
    let aligned = c.is_multiple_of(8) && used.iter().all(|u| widths(u).is_multiple_of(8));
    let tile = tile(cuda, Form::NN, dx, w, aligned);
    let mut args = vec![Arg::Out(dx), Arg::Maybe(mask), Arg::In(ds)];
    args.extend(each(used, Arg::Maybe(None), |u| Arg::Maybe(Some(u.target.a))));
    args.extend(each(used, Arg::Maybe(None), |u| Arg::Maybe(Some(u.dy))));
    args.extend(each(used, Arg::Maybe(None), |u| Arg::Maybe(Some(u.target.w))));
    args.extend(each(used, Arg::I32(0), |u| Arg::I32(u.target.rank() as i32)));
    args.extend(each(used, Arg::I32(0), |u| Arg::I32(widths(u) as i32)));
    args.push(Arg::F32(up));
    args.extend([t, c, ds.shape().as_matrix().1].map(|n| Arg::I32(n as i32)));
    start(cuda, &DX, "lora_dx", &variant(&tile, w, aligned), grid(&tile, (t, c), w), &mut args)
}

/// y of each target, and S of each.
fn forward_f32(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    outs: &mut [Tensor],
    x: &Tensor,
    targets: &[Target],
    mask: Option<&Tensor>,
) -> Result<Vec<Tensor>> {
    let (t, dropped) = (x.shape().as_matrix().0, dropped(op, cx, cuda, x, mask)?);
    let product =
        |y: &mut Tensor, add, a: Part, b: Part| multiply(cx, cuda, y, (0, t), add, Form::NT, [a, b]);
    let mut all = Vec::with_capacity(targets.len());
    for (y, target) in outs.iter_mut().zip(targets) {
        let (n, rank, adapters) = (y.shape().as_matrix().1, target.rank(), target.adapters());
        product(y, false, Part::all(x), Part::all(target.w))?;
        for g in 0..adapters {
            let mut s = cx.empty([t, rank], DType::F32);
            product(&mut s, false, Part::all(&dropped), Part { t: target.a, first: g * rank, rows: rank })?;
            let s = match &op.choice {
                Some(choice) => choose_rows(cuda, s, choice, (g, adapters), target.scale)?,
                None => scaled(cx, cuda, &s, target.scale)?,
            };
            product(y, true, Part::all(&s), Part { t: target.b, first: g * n, rows: n })?;
            if g == 0 {
                all.push(s);
            }
        }
    }
    Ok(all)
}

#[allow(clippy::too_many_arguments)]
fn backward_f32(
    op: &Lora,
    cx: &Ctx,
    cuda: &Cuda,
    gradients: &mut [[Tensor; 2]],
    dx: Option<&mut Tensor>,
    x: &Tensor,
    used: &[Used],
    mask: Option<&Tensor>,
) -> Result<()> {
    let (t, dropped) = (x.shape().as_matrix().0, dropped(op, cx, cuda, x, mask)?);
    let product = |y: &mut Tensor, add, form, a: &Tensor, b: &Tensor| {
        let rows = y.shape().as_matrix().0;
        multiply(cx, cuda, y, (0, rows), add, form, [a, b].map(Part::all))
    };
    let mut all = Vec::with_capacity(used.len());
    for (u, [da, db]) in used.iter().zip(gradients) {
        let mut ds = cx.scratch([t, u.target.rank()], DType::F32);
        product(&mut ds, false, Form::NN, u.dy, u.target.b)?;
        let ds = scaled(cx, cuda, &ds, u.target.scale)?;
        product(db, false, Form::TN, u.dy, u.s)?;
        product(da, false, Form::TN, &ds, &dropped)?;
        all.push(ds);
    }
    let Some(dx) = dx else { return Ok(()) };
    for (i, (u, ds)) in used.iter().zip(&all).enumerate() {
        product(dx, i > 0, Form::NN, ds, u.target.a)?;
    }
    if let Some(mask) = mask {
        drop(op, cuda, dx, None, mask)?;
    }
    used.iter().try_for_each(|u| product(dx, true, Form::NN, u.dy, u.target.w))
}

/// scale · x.
fn scaled(cx: &Ctx, cuda: &Cuda, x: &Tensor, scale: f32) -> Result<Tensor> {
    let (rows, columns) = x.shape().as_matrix();
    let mut y = cx.empty([rows, columns], DType::F32);
    let one = Slices { parts: x, at: 0, pitch: columns, stride: 0, slices: 1, scale };
    sum(cuda, &mut y, (0, columns), (rows, columns), false, one)?;
    Ok(y)
}

/// drop(x) in f32, or x itself.
fn dropped(op: &Lora, cx: &Ctx, cuda: &Cuda, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let Some(mask) = mask else { return Ok(x.detach()) };
    let mut y = cx.scratch(*x.shape(), x.dtype());
    drop(op, cuda, &mut y, Some(x), mask)?;
    Ok(y)
}

/// y = x, or what it holds, with what the mask drops zeroed and the rest scaled up.
fn drop(op: &Lora, cuda: &Cuda, y: &mut Tensor, x: Option<&Tensor>, mask: &Tensor) -> Result<()> {
    let ((t, c), up) = (y.shape().as_matrix(), op.dropout.as_ref().map_or(1.0, Dropout::up));
    let mut args =
        vec![Arg::InOut(y), Arg::Maybe(x), Arg::In(mask), Arg::F32(up), Arg::I32(t as i32), Arg::I32(c as i32)];
    start(cuda, &DROPOUT, "lora_drop", "", flat_grid(t * c, 1), &mut args)
}

/// scale · s in the rows of adapter `g` of so many, zero in the others.
fn choose_rows(
    cuda: &Cuda,
    mut s: Tensor,
    choice: &Tensor,
    (g, adapters): (usize, usize),
    scale: f32,
) -> Result<Tensor> {
    let (t, rank) = s.shape().as_matrix();
    let mut args = vec![Arg::InOut(&mut s), Arg::In(choice), Arg::I32(g as i32), Arg::I32(adapters as i32)];
    args.extend([Arg::F32(scale), Arg::I32(t as i32), Arg::I32(rank as i32)]);
    start(cuda, &DROPOUT, "lora_choose", "", flat_grid(t * rank, 1), &mut args)?;
    Ok(s)
}

/// A bit for every channel of every token that is kept: (T, ⌈C/32⌉) words.
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
        Arg::F32(dropout.p),
        Arg::I32(t as i32),
        Arg::I32(c as i32),
    ];
    start(cuda, &DROPOUT, "lora_mask", "", flat_grid(t * c.div_ceil(32), 1), args)?;
    Ok(mask)
}

/// The arguments of one parameter of each target; `none` beyond the last.
fn each<'a, T>(all: &'a [T], none: Arg<'a>, of: impl Fn(&'a T) -> Arg<'a>) -> Vec<Arg<'a>> {
    let absent = || match none {
        Arg::I32(x) => Arg::I32(x),
        Arg::F32(x) => Arg::F32(x),
        _ => Arg::Maybe(None),
    };
    (0..TARGETS).map(|i| all.get(i).map_or_else(absent, &of)).collect()
}

fn tile(cuda: &Cuda, form: Form, y: &Tensor, w: &Tensor, aligned: bool) -> Tile {
    let (m, n) = y.shape().as_matrix();
    match (aligned, w.dtype()) {
        (true, DType::BF16) => choose(form, m, n, cuda.properties().multiprocessors),
        _ => TILES[2],
    }
}

fn variant(tile: &Tile, w: &Tensor, aligned: bool) -> String {
    format!("SHAPE={} W={} ALIGNED={}", tile.shape, element(w.dtype()), aligned as usize)
}

fn grid(tile: &Tile, (m, n): (usize, usize), w: &Tensor) -> Grid {
    let blocks = m.div_ceil(tile.rows) * n.div_ceil(tile.columns);
    Grid { blocks: [blocks, 1, 1], threads: tile.threads, shared: tile_shared(tile, w.dtype()) }
}

/// What the kernels take beyond what the op has checked.
fn supported(x: &Tensor, targets: &[Target]) -> Result<()> {
    let odd = |t: &Target| {
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
    variant: &str,
    grid: Grid,
    args: &mut [Arg],
) -> Result<()> {
    let kernel = cuda.kernel(source, variant, kernel)?;
    // SAFETY: the op has checked that x, W, A and B fit together; the other tensors were made here, in the shapes
    // that the kernels' parameters state; shared memory is what the tiles take.
    unsafe { kernel.launch(grid, args) }
}
