//! f32 activations: plain products, in the CPU twin's order.

use super::{BackwardLinear, DROPOUT, LoraLinear, LoraPass, start};
use crate::cuda::flat_grid;
use crate::gemm::cuda::{Accumulate, OperandLayout, PartialSums, RowSlice, multiply, sum};
use codelsi_engine::cuda::{Arg, Cuda, Variant};
use codelsi_engine::{Ctx, DType, Result, Tensor};

/// Computes y and S of each target.
pub(super) fn forward(
    run: &LoraPass,
    outs: &mut [Tensor],
    x: &Tensor,
    targets: &[LoraLinear],
) -> Result<Vec<Tensor>> {
    let LoraPass { cx, cuda, .. } = *run;
    let (t, dropped) = (x.shape().as_matrix().0, dropped(run, x)?);
    let product = |y: &mut Tensor, add, a: RowSlice, b: RowSlice| {
        multiply(cx, cuda, y, (0, t), add, OperandLayout::NT, [a, b])
    };
    let mut all = Vec::with_capacity(targets.len());
    for (y, target) in outs.iter_mut().zip(targets) {
        let (n, rank, adapters) = (y.shape().as_matrix().1, target.rank(), target.adapters());
        product(y, false, RowSlice::all(x), RowSlice::all(target.w))?;
        for g in 0..adapters {
            let mut s = cx.empty([t, rank], DType::F32);
            product(
                &mut s,
                false,
                RowSlice::all(&dropped),
                RowSlice { t: target.a, first: g * rank, rows: rank },
            )?;
            let s = match run.adapter_ids {
                Some(choice) => choose_rows(cuda, s, choice, (g, adapters), target.scale)?,
                None => scaled(cx, cuda, &s, target.scale)?,
            };
            product(y, true, RowSlice::all(&s), RowSlice { t: target.b, first: g * n, rows: n })?;
            if g == 0 {
                all.push(s);
            }
        }
    }
    Ok(all)
}

/// Computes dA and dB of each target, and dx if it is wanted.
pub(super) fn backward(
    run: &LoraPass,
    gradients: &mut [[Tensor; 2]],
    dx: Option<&mut Tensor>,
    x: &Tensor,
    used: &[BackwardLinear],
) -> Result<()> {
    let LoraPass { cx, cuda, .. } = *run;
    let (t, dropped) = (x.shape().as_matrix().0, dropped(run, x)?);
    let product = |y: &mut Tensor, add, form, a: &Tensor, b: &Tensor| {
        let rows = y.shape().as_matrix().0;
        multiply(cx, cuda, y, (0, rows), add, form, [a, b].map(RowSlice::all))
    };
    let mut all = Vec::with_capacity(used.len());
    for (u, [da, db]) in used.iter().zip(gradients) {
        let mut ds = cx.scratch([t, u.target.rank()], DType::F32);
        product(&mut ds, false, OperandLayout::NN, u.dy, u.target.b)?;
        let ds = scaled(cx, cuda, &ds, u.target.scale)?;
        product(db, false, OperandLayout::TN, u.dy, u.s)?;
        product(da, false, OperandLayout::TN, &ds, &dropped)?;
        all.push(ds);
    }
    let Some(dx) = dx else { return Ok(()) };
    for (i, (u, ds)) in used.iter().zip(&all).enumerate() {
        product(dx, i > 0, OperandLayout::NN, ds, u.target.a)?;
    }
    if let Some(mask) = &run.mask {
        drop(run, dx, None, mask)?;
    }
    used.iter().try_for_each(|u| product(dx, true, OperandLayout::NN, u.dy, u.target.w))
}

/// Returns scale · x.
fn scaled(cx: &Ctx, cuda: &Cuda, x: &Tensor, scale: f32) -> Result<Tensor> {
    let (rows, columns) = x.shape().as_matrix();
    let mut y = cx.empty([rows, columns], DType::F32);
    let one = PartialSums { parts: x, at: 0, pitch: columns, stride: 0, slices: 1, scale };
    sum(cuda, &mut y, (0, columns), (rows, columns), Accumulate::Overwrite, one)?;
    Ok(y)
}

/// Returns drop(x) in f32, or x itself without dropout.
fn dropped(run: &LoraPass, x: &Tensor) -> Result<Tensor> {
    let Some(mask) = &run.mask else { return Ok(x.detach()) };
    let mut y = run.cx.scratch(*x.shape(), x.dtype());
    drop(run, &mut y, Some(x), mask)?;
    Ok(y)
}

/// Computes y = x, or y in place, with dropped channels zeroed and kept channels scaled up.
fn drop(run: &LoraPass, y: &mut Tensor, x: Option<&Tensor>, mask: &Tensor) -> Result<()> {
    let (t, c) = y.shape().as_matrix();
    let mut args = vec![Arg::InOut(y), Arg::Maybe(x), Arg::In(mask), Arg::F32(run.up)];
    args.extend([t, c].map(|n| Arg::I32(n as i32)));
    start(run.cuda, &DROPOUT, "lora_drop", Variant::PLAIN, flat_grid(t * c, 1), &mut args)
}

/// Computes scale · s in the rows that choose adapter `g`, zero in the others.
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
    start(cuda, &DROPOUT, "lora_choose", Variant::PLAIN, flat_grid(t * rank, 1), &mut args)?;
    Ok(s)
}
