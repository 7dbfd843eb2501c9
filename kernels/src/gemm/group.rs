//! Several products that share x, as q k v and gate up do: one launch on a GPU in bf16.
//!
//! The weights stay where they are: a group needs no second layout of them, whichever part of them a rank holds.

use super::cuda::{
    self, GROUP_HEADER, GemmShape, MAINLOOP, OperandLayout, RowSlice, TILES, TileVariant, choose,
};
use super::{linear, multiply_each, nt, precision};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Device, InputGrads, Op, Outs, Result, Saved, Tensor};

/// Groups of bf16 products.
pub static GROUP: Source = Source {
    name: "gemm/group.cu",
    text: include_str!("group.cu"),
    headers: &[MAINLOOP[0], MAINLOOP[1], MAINLOOP[2], GROUP_HEADER],
    constants: cuda::SHAPE_CONSTANTS,
    variants: || TILES.iter().map(|tile| variant(tile.shape)).collect(),
};

/// Products of one launch.
pub(crate) const GROUP_SIZE: usize = 4;

/// Defines SHAPE.
fn variant(shape: usize) -> Variant {
    Variant::PLAIN.int("SHAPE", shape)
}

/// Returns y (T, N) = x (T, K) · w (N, K)ᵀ for each of `weights`, as [`linear`] does: the same bits, in one launch where no
/// gradient is wanted.
///
/// # Errors
/// When the inner dimensions differ.
pub fn linears(cx: &Ctx, x: &Tensor, weights: &[&Tensor]) -> Result<Outs> {
    let inputs: Vec<&Tensor> = [x].into_iter().chain(weights.iter().copied()).collect();
    match weights.len() < 2 || cx.records(&inputs) {
        true => weights.iter().map(|w| linear(cx, x, w)).collect(),
        false => cx.apply(Linears, &inputs),
    }
}

struct Linears;

impl Op for Linears {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let (x, weights) = (x[0], &x[1..]);
        weights.iter().try_for_each(|w| super::check_depth(x, w))?;
        let rows = x.shape().as_matrix().0;
        let mut outs: Outs = weights.iter().map(|w| cx.empty([rows, w.shape()[0]], x.dtype())).collect();
        match cx.device() {
            Device::Cpu(_) => {
                let terms = weights.iter().map(|w| Ok(vec![nt(x, w)?])).collect::<Result<Vec<_>>>()?;
                multiply_each(&mut outs, &terms, precision(x))?;
            }
            Device::Cuda(cuda) => multiply(cx, cuda, &mut outs, x, weights)?,
            Device::Plan(_) => {}
        }
        Ok(outs)
    }

    fn backward(&self, _: &Ctx, _: &Saved, _: &[Option<Tensor>], _: &mut InputGrads<'_>) -> Result<()> {
        unreachable!("refused in forward")
    }

    fn differentiable(&self) -> bool {
        false
    }
}

/// Computes each y = x wᵀ: in one launch where all operands are bf16 in whole chunks and no K is cut, else one by one.
fn multiply(cx: &Ctx, cuda: &Cuda, outs: &mut [Tensor], x: &Tensor, weights: &[&Tensor]) -> Result<()> {
    let (m, k) = x.shape().as_matrix();
    let mut fits = x.dtype() == DType::BF16 && weights.len() <= GROUP_SIZE;
    for (y, w) in outs.iter().zip(weights) {
        let size = GemmShape::new(OperandLayout::NT, y, (0, m), [x, w].map(RowSlice::all))?;
        fits &= TileVariant::streams(size, w.dtype());
    }
    if !cuda.branch("gemm: a group at once", fits) {
        let mut each = outs.iter_mut().zip(weights);
        return each.try_for_each(|(y, w)| {
            let ab = [x, w].map(RowSlice::all);
            cuda::multiply(cx, cuda, y, (0, m), false, OperandLayout::NT, ab)
        });
    }
    let widths: Vec<usize> = weights.iter().map(|w| w.shape()[0]).collect();
    let tile = choose(OperandLayout::NT, m, &widths, cuda.properties().multiprocessors);
    let blocks = m.div_ceil(tile.rows) * widths.iter().map(|n| n.div_ceil(tile.columns)).sum::<usize>();
    let grid = Grid { blocks: [blocks, 1, 1], threads: tile.threads, shared: tile.shared };
    let mut args = per_target_mut(2, outs);
    args.push(Arg::In(x));
    args.extend(per_target(2, weights, |w| Arg::Maybe(w.copied())));
    args.extend(per_target(2, &widths, |n| Arg::I32(n.map_or(0, |&n| n as i32))));
    args.extend([m, k].map(|n| Arg::I32(n as i32)));
    cuda::start(cuda, &GROUP, "gemm_group", variant(tile.shape), grid, &mut args)
}

/// Returns [`GROUP_SIZE`] arguments, one of each target and null for missing targets; the first `least` are never missing.
pub(crate) fn per_target<'a, T>(
    least: usize,
    all: &'a [T],
    of: impl Fn(Option<&'a T>) -> Arg<'a>,
) -> Vec<Arg<'a>> {
    let arg = |i| match of(all.get(i)) {
        Arg::Maybe(Some(there)) if i < least => Arg::In(there),
        arg => arg,
    };
    (0..GROUP_SIZE).map(arg).collect()
}

/// Returns [`GROUP_SIZE`] outputs, null for missing targets; the first `least` are never missing.
pub(crate) fn per_target_mut<'a>(
    least: usize,
    all: impl IntoIterator<Item = &'a mut Tensor>,
) -> Vec<Arg<'a>> {
    let given = all.into_iter().enumerate().map(|(i, t)| match i < least {
        true => Arg::Out(t),
        false => Arg::MaybeOut(Some(t)),
    });
    let mut args: Vec<Arg> = given.collect();
    args.resize_with(GROUP_SIZE, || Arg::MaybeOut(None));
    args
}
