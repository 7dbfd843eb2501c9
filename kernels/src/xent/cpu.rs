//! The CPU twin: gathered tokens against tiles of the vocabulary, the products by gemm.

use super::{NO_LABEL, Xent};
use crate::gemm::cpu::{Data, Operand, Precision, Segment, Start, multiply};
use crate::gemm::{data, precision};
use crate::rows::{Rows, TASK};
use crate::simd::{Storage, exp, max, sum, vectorize};
use codelsi_engine::comm::{Comm, Reduce};
use codelsi_engine::{Ctx, DType, Error, Label, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Labelled tokens that are worked on together: as many rows as a block of gemm.
const ROWS: usize = 252;
/// Rows of the head that they meet at a time.
const TILE: usize = 4096;

pub struct Outputs {
    pub loss: Tensor,
    pub logprobs: Tensor,
    /// (T, C), if wanted.
    pub dh: Option<Tensor>,
    /// (V, C) in f32, if wanted.
    pub dhead: Option<Tensor>,
}

/// Working memory, whatever T and V are.
pub struct Work {
    /// The gathered rows of h (ROWS, C).
    x: Tensor,
    /// A tile of logits (ROWS, TILE).
    z: Tensor,
    /// The same tile as probabilities, in h's storage type (ROWS, TILE).
    p: Option<Tensor>,
    /// Σ e^(z − max)·head (ROWS, C), and the same before the present tile.
    sums: Option<[Tensor; 2]>,
    /// A tile of dhead as it was before the present tokens (TILE, C).
    dhead: Option<Tensor>,
    /// What ranks tell each other when each holds a part of the head.
    shares: Option<Shares>,
}

impl Work {
    pub fn new(cx: &Ctx, h: &Tensor, head: &Tensor, vocabulary: Rows, out: &Outputs) -> Self {
        let ((t, c), (v, _)) = (h.shape().as_matrix(), head.shape().as_matrix());
        let (rows, tile) = (t.min(ROWS), v.min(TILE));
        let f32s = |rows, columns| cx.scratch([rows, columns], DType::F32);
        let logits = |dtype| cx.device().empty(Label::Logits, [rows, tile], dtype);
        Work {
            x: cx.scratch([rows, c], h.dtype()),
            z: logits(DType::F32),
            p: (out.dh.is_some() || out.dhead.is_some()).then(|| logits(h.dtype())),
            sums: out.dh.as_ref().map(|_| [f32s(rows, c), f32s(rows, c)]),
            dhead: out.dhead.as_ref().map(|_| f32s(tile, c)),
            shares: (v < vocabulary.of).then(|| Shares::new(cx, rows)),
        }
    }
}

/// What ranks that hold other rows of the head tell each other of n tokens.
pub struct Shares {
    /// The largest logits (n).
    pub largest: Tensor,
    /// Σ e^(z − max), then the targets' logits, which are 0 where their rows are not (2, n).
    pub sums: Tensor,
}

impl Shares {
    pub fn new(cx: &Ctx, n: usize) -> Self {
        // Fewer tokens than n leave a rest, which travels too.
        let zeros = |shape: &[usize]| cx.device().zeros(Label::Scratch, shape, DType::F32);
        Shares { largest: zeros(&[n]), sums: zeros(&[2, n]) }
    }
}

/// A labelled token, and what is known of its logits so far.
struct Row {
    t: usize,
    target: usize,
    max: f32,
    /// Σ e^(z − max)
    total: f32,
    /// The target's own logit.
    logit: f32,
    /// What the last tile's larger maximum made of the sums before it.
    correction: f32,
}

impl Row {
    fn new((t, target): (usize, usize)) -> Self {
        Row { t, target, max: f32::NEG_INFINITY, total: 0.0, logit: 0.0, correction: 0.0 }
    }

    fn logprob(&self) -> f32 {
        self.logit - self.max - self.total.ln()
    }
}

/// What every step of the work reads.
struct Head<'a> {
    data: Data<'a>, // (V, C)
    vocab: usize,
    /// What its first row is in the vocabulary.
    first: usize,
    c: usize,
    precision: Precision,
}

impl<'a> Head<'a> {
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let vocab = self.vocab;
        (0..vocab).step_by(TILE).map(move |v| v..vocab.min(v + TILE))
    }

    /// Which row is `target`, if it is here.
    fn row_of(&self, target: usize) -> Option<usize> {
        target.checked_sub(self.first).filter(|&row| row < self.vocab)
    }

    /// These rows of the head.
    fn rows(&self, rows: Range<usize>) -> Data<'a> {
        let part = rows.start * self.c..rows.end * self.c;
        match self.data {
            Data::F32(w) => Data::F32(&w[part]),
            Data::BF16(w) => Data::BF16(&w[part]),
        }
    }

    /// z (n, tile) = x (n, C) · head_tileᵀ.
    fn logits(&self, z: &mut [f32], n: usize, x: Data, tile: Range<usize>) {
        let size = (n, tile.len());
        let a = Operand::rows(x, self.c);
        let b = Operand::rows(self.rows(tile), self.c);
        multiply(z, size, Start::Zero, &[Segment { a, b, depth: self.c }], self.precision);
    }
}

/// Loss, log-probabilities, and the gradients that `out` has room for.
pub fn forward<E: Storage>(
    out: &mut Outputs,
    work: &mut Work,
    comm: &dyn Comm,
    [h, head, targets]: [&Tensor; 3],
    &Xent { scale, labelled, vocabulary }: &Xent,
) -> Result<()> {
    let (vocab, c) = head.shape().as_matrix();
    let (targets, precision) = (targets.slice::<i32>()?, precision(h)); // (T)
    check_targets(targets, vocabulary.of, labelled)?;
    let head = Head { data: data(head)?, vocab, first: vocabulary.first, c, precision };
    let h = h.slice::<E>()?; // (T, C)
    let logprobs = out.logprobs.slice_mut::<f32>()?; // (T)
    logprobs.fill(0.0);
    for gradient in [&mut out.dh, &mut out.dhead].into_iter().flatten() {
        gradient.bytes_mut()?.fill(0);
    }
    let mut labelled = targets.iter().enumerate().filter(|(_, y)| **y != NO_LABEL);
    loop {
        let next = labelled.by_ref().take(ROWS).map(|(t, &y)| Row::new((t, y as usize)));
        let mut rows: Vec<Row> = next.collect();
        if rows.is_empty() {
            break;
        }
        gather(work.x.slice_mut::<E>()?, h, &rows, c);
        first_pass::<E>(&mut rows, work, &head)?;
        if let Some(shares) = &mut work.shares {
            join(&mut rows, shares, comm)?;
            rescale(&rows, work, c)?;
        }
        for row in &rows {
            logprobs[row.t] = row.logprob();
        }
        if let (Some(dh), Some([sums, _])) = (&mut out.dh, &work.sums) {
            input_gradient(dh.slice_mut::<E>()?, &rows, sums.slice()?, &head, scale);
        }
        if let Some(dhead) = &mut out.dhead {
            second_pass::<E>(dhead.slice_mut()?, &rows, work, &head, scale)?;
        }
    }
    let total: f64 = logprobs.iter().map(|&l| l as f64).sum();
    out.loss.slice_mut::<f32>()?[0] = (-total * scale as f64) as f32;
    Ok(())
}

fn check_targets(targets: &[i32], vocab: usize, labelled: usize) -> Result<()> {
    let count = targets.iter().filter(|&&y| y != NO_LABEL).count();
    if count != labelled {
        return Err(Error::new(format!("{count} tokens have a label, {labelled} were said to")));
    }
    match targets.iter().position(|&y| y != NO_LABEL && (y < 0 || y as usize >= vocab)) {
        Some(t) => {
            let target = targets[t];
            Err(Error::new(format!("target {target} of token {t} is outside the vocabulary of {vocab}")))
        }
        None => Ok(()),
    }
}

fn gather<E: Storage>(x: &mut [E], h: &[E], rows: &[Row], c: usize) {
    for (x, row) in x.chunks_exact_mut(c).zip(rows) {
        x.copy_from_slice(&h[row.t * c..][..c]);
    }
}

/// Follows maximum and sum of every row over the tiles, and Σ e^(z − max)·head if dh is wanted.
fn first_pass<E: Storage>(rows: &mut [Row], work: &mut Work, head: &Head) -> Result<()> {
    let Work { x, z, p, sums, .. } = work;
    let (n, c) = (rows.len(), head.c);
    for tile in head.tiles() {
        let z = &mut z.slice_mut::<f32>()?[..n * tile.len()]; // (n, tile)
        head.logits(z, n, data(x)?, tile.clone());
        z.par_chunks_exact_mut(tile.len()).zip(&mut *rows).for_each(|(z, row)| {
            vectorize(
                #[inline(always)]
                || follow(row, z, head.first + tile.start),
            )
        });
        let (Some([sums, before]), Some(p)) = (&mut *sums, &mut *p) else { continue };
        round(p.slice_mut::<E>()?, z);
        let (sums, before) = (&mut sums.slice_mut::<f32>()?[..n * c], before.slice_mut::<f32>()?); // (n, C)
        let start = match tile.start {
            0 => Start::Zero,
            _ => {
                correct(before, sums, rows, c);
                Start::From(before)
            }
        };
        let a = Operand::rows(data(p)?, tile.len());
        let b = Operand::columns(head.rows(tile.clone()), c);
        multiply(sums, (n, c), start, &[Segment { a, b, depth: tile.len() }], head.precision);
    }
    Ok(())
}

/// Makes what is known of the ranks' parts of the logits that of the whole.
fn join(rows: &mut [Row], shares: &mut Shares, comm: &dyn Comm) -> Result<()> {
    let largest = shares.largest.slice_mut::<f32>()?;
    largest.iter_mut().zip(&*rows).for_each(|(largest, row)| *largest = row.max);
    comm.all_reduce(&mut shares.largest, Reduce::Max)?;
    let (largest, sums) = (shares.largest.slice::<f32>()?, shares.sums.slice_mut::<f32>()?);
    let (totals, logits) = sums.split_at_mut(largest.len());
    for (i, row) in rows.iter_mut().enumerate() {
        row.correction = exp(row.max - largest[i]);
        row.max = largest[i];
        (totals[i], logits[i]) = (row.total * row.correction, row.logit);
    }
    comm.all_reduce(&mut shares.sums, Reduce::Sum)?;
    let (totals, logits) = shares.sums.slice::<f32>()?.split_at(largest.len());
    for (i, row) in rows.iter_mut().enumerate() {
        (row.total, row.logit) = (totals[i], logits[i]);
    }
    Ok(())
}

/// Scales the sums of a rank's part to the maximum of the whole.
fn rescale(rows: &[Row], work: &mut Work, c: usize) -> Result<()> {
    let Some([sums, _]) = &mut work.sums else { return Ok(()) };
    sums.slice_mut::<f32>()?.par_chunks_exact_mut(c).zip(rows).for_each(|(sums, row)| {
        sums.iter_mut().for_each(|s| *s *= row.correction);
    });
    Ok(())
}

/// Takes a tile of logits, from token `start` on, into `row`; leaves e^(z − max) in their place.
#[inline(always)]
fn follow(row: &mut Row, z: &mut [f32], start: usize) {
    let max = row.max.max(max(z));
    row.correction = exp(row.max - max);
    row.max = max;
    if let Some(logit) = row.target.checked_sub(start).and_then(|i| z.get(i)) {
        row.logit = *logit;
    }
    z.iter_mut().for_each(|z| *z = exp(*z - max));
    row.total = row.total * row.correction + sum(z.len(), |i| z[i]);
}

/// p = z, in the storage type of p.
fn round<E: Storage>(p: &mut [E], z: &[f32]) {
    p.par_chunks_mut(TASK).zip(z.par_chunks(TASK)).for_each(|(p, z)| {
        vectorize(
            #[inline(always)]
            || p.iter_mut().zip(z).for_each(|(p, &z)| *p = E::put(z)),
        );
    });
}

/// before = sums, each row scaled to its new maximum.
fn correct(before: &mut [f32], sums: &[f32], rows: &[Row], c: usize) {
    let pairs = before.par_chunks_exact_mut(c).zip(sums.par_chunks_exact(c));
    pairs.zip(rows).for_each(|((before, sums), row)| {
        before.iter_mut().zip(sums).for_each(|(b, s)| *b = s * row.correction);
    });
}

/// dh of the rows, from `sums` (n, C).
fn input_gradient<E: Storage>(dh: &mut [E], rows: &[Row], sums: &[f32], head: &Head, scale: f32) {
    for (row, sums) in rows.iter().zip(sums.chunks_exact(head.c)) {
        let dh = &mut dh[row.t * head.c..][..head.c];
        match head.row_of(row.target).map(|v| head.rows(v..v + 1)) {
            Some(Data::F32(target)) => input_gradient_row(dh, row, sums, target, scale),
            Some(Data::BF16(target)) => input_gradient_row(dh, row, sums, target, scale),
            None => vectorize(
                #[inline(always)]
                || dh.iter_mut().zip(sums).for_each(|(dh, sum)| *dh = E::put(scale * (sum / row.total))),
            ),
        }
    }
}

/// dh = scale·(Σ p·head − head_target)
fn input_gradient_row<E: Storage, W: Storage>(
    dh: &mut [E],
    row: &Row,
    sums: &[f32],
    target: &[W],
    scale: f32,
) {
    vectorize(
        #[inline(always)]
        || {
            for ((dh, sum), target) in dh.iter_mut().zip(sums).zip(target) {
                *dh = E::put(scale * (sum / row.total - target.get()));
            }
        },
    );
}

/// dhead += scale·(p − [v = target])ᵀ·x, with the logits made again: p needs the sum over all tiles.
fn second_pass<E: Storage>(
    dhead: &mut [f32],
    rows: &[Row],
    work: &mut Work,
    head: &Head,
    scale: f32,
) -> Result<()> {
    let Work { x, z, p, dhead: before, .. } = work;
    let (Some(p), Some(before)) = (p, before) else { return Ok(()) };
    let (n, c) = (rows.len(), head.c);
    for tile in head.tiles() {
        let z = &mut z.slice_mut::<f32>()?[..n * tile.len()]; // (n, tile)
        head.logits(z, n, data(x)?, tile.clone());
        z.par_chunks_exact_mut(tile.len()).zip(rows).for_each(|(z, row)| {
            vectorize(
                #[inline(always)]
                || z.iter_mut().for_each(|z| *z = scale * (exp(*z - row.max) / row.total)),
            );
            if let Some(p) = row.target.checked_sub(head.first + tile.start).and_then(|i| z.get_mut(i)) {
                *p -= scale;
            }
        });
        round(p.slice_mut::<E>()?, z);
        let dhead = &mut dhead[tile.start * c..tile.end * c]; // (tile, C)
        let before = &mut before.slice_mut::<f32>()?[..dhead.len()];
        before.copy_from_slice(dhead);
        let a = Operand::columns(data(p)?, tile.len());
        let b = Operand::columns(data(x)?, c);
        let size = (tile.len(), c);
        multiply(dhead, size, Start::From(before), &[Segment { a, b, depth: n }], head.precision);
    }
    Ok(())
}

/// y = x · factor, a scalar.
pub fn scale<E: Storage>(y: &mut Tensor, x: &Tensor, factor: &Tensor) -> Result<()> {
    let factor = factor.slice::<f32>()?[0];
    let x = x.slice::<E>()?.par_chunks(TASK);
    y.slice_mut::<E>()?.par_chunks_mut(TASK).zip(x).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = E::put(x.get() * factor));
    });
    Ok(())
}
