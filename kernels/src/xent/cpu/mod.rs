//! The CPU twin: chunks of gathered tokens against chunks of the vocabulary, with the matrix products of `gemm`.

pub mod head;

use super::{IGNORE_INDEX, Xent};
use crate::gemm::cpu::{AccumulatorInit, Elements, Matrix, ProductTerm, multiply};
use crate::gemm::elements;
use crate::rows::{RowShard, TASK_SIZE};
use crate::simd::{Storage, exp, exp_each, max, sum, vectorize};
use codelsi_engine::comm::{Comm, ReduceOp};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use head::{LmHead, TOKEN_CHUNK, VOCAB_CHUNK, check_targets, gather, store_rounded};
use rayon::prelude::*;

/// Outputs of forward, gradients included.
pub struct Outputs {
    pub loss: Tensor,
    pub logprobs: Tensor,
    /// (T, C), if wanted.
    pub dh: Option<Tensor>,
    /// (V, C) in f32, if wanted.
    pub dhead: Option<Tensor>,
}

/// Working memory, of a size that does not grow with T and V.
pub struct HostWorkspace {
    /// The gathered rows of h (TOKEN_CHUNK, C).
    x: Tensor,
    /// A tile of logits (TOKEN_CHUNK, VOCAB_CHUNK).
    z: Tensor,
    /// The tile as probabilities, in the storage type of h (TOKEN_CHUNK, VOCAB_CHUNK).
    p: Option<Tensor>,
    /// Σ e^(z − max)·head (TOKEN_CHUNK, C), and its value before the current chunk.
    sums: Option<[Tensor; 2]>,
    /// A chunk of dhead before the current tokens are added (VOCAB_CHUNK, C).
    dhead: Option<Tensor>,
    /// Buffers of the all-reduces, when ranks hold shards of the head.
    shares: Option<SoftmaxStats>,
}

impl HostWorkspace {
    pub fn new(cx: &Ctx, h: &Tensor, head: &Tensor, vocabulary: RowShard, out: &Outputs) -> Self {
        let ((t, c), (v, _)) = (h.shape().as_matrix(), head.shape().as_matrix());
        let (rows, chunk) = (t.min(TOKEN_CHUNK), v.min(VOCAB_CHUNK));
        let f32s = |rows, columns| cx.scratch([rows, columns], DType::F32);
        let logits = |dtype| cx.device().empty(Label::Logits, [rows, chunk], dtype);
        HostWorkspace {
            x: cx.scratch([rows, c], h.dtype()),
            z: logits(DType::F32),
            p: (out.dh.is_some() || out.dhead.is_some()).then(|| logits(h.dtype())),
            sums: out.dh.as_ref().map(|_| [f32s(rows, c), f32s(rows, c)]),
            dhead: out.dhead.as_ref().map(|_| f32s(chunk, c)),
            shares: (v < vocabulary.total).then(|| SoftmaxStats::new(cx, rows)),
        }
    }
}

/// Softmax statistics of n tokens that ranks with different rows of the head all-reduce.
pub struct SoftmaxStats {
    /// Maxima of the logits (n).
    pub max: Tensor,
    /// Σ e^(z − max), then the logits of the targets, 0 on ranks that do not hold the target's row (2, n).
    pub sums: Tensor,
}

impl SoftmaxStats {
    pub fn new(cx: &Ctx, n: usize) -> Self {
        // The last chunk may have fewer tokens; the buffer is still reduced in full.
        let zeros = |shape: &[usize]| cx.device().zeros(Label::Scratch, shape, DType::F32);
        SoftmaxStats { max: zeros(&[n]), sums: zeros(&[2, n]) }
    }
}

/// A labelled token with its running softmax statistics.
struct TokenState {
    t: usize,
    target: usize,
    max: f32,
    /// Running Σ e^(z − max).
    total: f32,
    /// Logit of the target.
    logit: f32,
    /// Factor that rescales the earlier sums to the maximum after the last chunk.
    correction: f32,
}

impl TokenState {
    fn new((t, target): (usize, usize)) -> Self {
        TokenState { t, target, max: f32::NEG_INFINITY, total: 0.0, logit: 0.0, correction: 0.0 }
    }

    fn logprob(&self) -> f32 {
        self.logit - self.max - self.total.ln()
    }
}

/// Computes loss, log-probabilities, and the gradients that `out` has tensors for.
pub fn forward<E: Storage>(
    out: &mut Outputs,
    workspace: &mut HostWorkspace,
    comm: &dyn Comm,
    [h, head, targets]: [&Tensor; 3],
    &Xent { scale, labelled, vocabulary }: &Xent,
) -> Result<()> {
    let targets = targets.slice::<i32>()?; // (T)
    check_targets(targets, vocabulary.total, labelled)?;
    let (head, c) = (LmHead::new(head, vocabulary.first, h)?, head.shape().as_matrix().1);
    let h = h.slice::<E>()?; // (T, C)
    let logprobs = out.logprobs.slice_mut::<f32>()?; // (T)
    logprobs.fill(0.0);
    for gradient in [&mut out.dh, &mut out.dhead].into_iter().flatten() {
        gradient.bytes_mut()?.fill(0);
    }
    let mut labelled = targets.iter().enumerate().filter(|(_, y)| **y != IGNORE_INDEX);
    loop {
        let next = labelled.by_ref().take(TOKEN_CHUNK).map(|(t, &y)| TokenState::new((t, y as usize)));
        let mut tokens: Vec<TokenState> = next.collect();
        if tokens.is_empty() {
            break;
        }
        gather(workspace.x.slice_mut::<E>()?, h, tokens.iter().map(|token| token.t), c);
        softmax_pass::<E>(&mut tokens, workspace, &head)?;
        if let Some(shares) = &mut workspace.shares {
            reduce_over_ranks(&mut tokens, shares, comm)?;
            rescale_sums(&tokens, workspace, c)?;
        }
        for token in &tokens {
            logprobs[token.t] = token.logprob();
        }
        if let (Some(dh), Some([sums, _])) = (&mut out.dh, &workspace.sums) {
            input_gradient(dh.slice_mut::<E>()?, &tokens, sums.slice()?, &head, scale);
        }
        if let Some(dhead) = &mut out.dhead {
            head_gradient_pass::<E>(dhead.slice_mut()?, &tokens, workspace, &head, scale)?;
        }
    }
    let total: f64 = logprobs.iter().map(|&l| l as f64).sum();
    out.loss.slice_mut::<f32>()?[0] = (-total * scale as f64) as f32;
    Ok(())
}

/// Computes maximum and sum of every token online over the vocabulary chunks, and Σ e^(z − max)·head if dh is wanted.
fn softmax_pass<E: Storage>(
    tokens: &mut [TokenState],
    workspace: &mut HostWorkspace,
    head: &LmHead,
) -> Result<()> {
    let HostWorkspace { x, z, p, sums, .. } = workspace;
    let (n, c) = (tokens.len(), head.c);
    for chunk in head.chunks() {
        let z = &mut z.slice_mut::<f32>()?[..n * chunk.len()]; // (n, chunk)
        head.logits(z, n, elements(x)?, chunk.clone());
        z.par_chunks_exact_mut(chunk.len()).zip(&mut *tokens).for_each_on_team(|(z, token)| {
            vectorize(
                #[inline(always)]
                || update_softmax(token, z, head.first + chunk.start),
            )
        });
        let (Some([sums, before]), Some(p)) = (&mut *sums, &mut *p) else { continue };
        store_rounded(p.slice_mut::<E>()?, z);
        let (sums, before) = (&mut sums.slice_mut::<f32>()?[..n * c], before.slice_mut::<f32>()?); // (n, C)
        let start = match chunk.start {
            0 => AccumulatorInit::Zero,
            _ => {
                rescale_into(before, sums, tokens, c);
                AccumulatorInit::From(before)
            }
        };
        let a = Matrix::k_major(elements(p)?, chunk.len());
        let b = Matrix::mn_major(head.rows(chunk.clone()), c);
        multiply(sums, (n, c), start, &[ProductTerm { a, b, depth: chunk.len() }], head.precision);
    }
    Ok(())
}

/// All-reduces the softmax statistics: those of each rank's shard become those of the full vocabulary.
fn reduce_over_ranks(tokens: &mut [TokenState], shares: &mut SoftmaxStats, comm: &dyn Comm) -> Result<()> {
    let maxima = shares.max.slice_mut::<f32>()?;
    maxima.iter_mut().zip(&*tokens).for_each(|(max, token)| *max = token.max);
    comm.all_reduce(&mut shares.max, ReduceOp::Max)?;
    let (maxima, sums) = (shares.max.slice::<f32>()?, shares.sums.slice_mut::<f32>()?);
    let (totals, logits) = sums.split_at_mut(maxima.len());
    for (i, token) in tokens.iter_mut().enumerate() {
        token.correction = exp(token.max - maxima[i]);
        token.max = maxima[i];
        (totals[i], logits[i]) = (token.total * token.correction, token.logit);
    }
    comm.all_reduce(&mut shares.sums, ReduceOp::Sum)?;
    let (totals, logits) = shares.sums.slice::<f32>()?.split_at(maxima.len());
    for (i, token) in tokens.iter_mut().enumerate() {
        (token.total, token.logit) = (totals[i], logits[i]);
    }
    Ok(())
}

/// Rescales the rank's Σ e^(z − max)·head to the maximum over all ranks.
fn rescale_sums(tokens: &[TokenState], workspace: &mut HostWorkspace, c: usize) -> Result<()> {
    let Some([sums, _]) = &mut workspace.sums else { return Ok(()) };
    sums.slice_mut::<f32>()?.par_chunks_exact_mut(c).zip(tokens).for_each_on_team(|(sums, token)| {
        sums.iter_mut().for_each(|s| *s *= token.correction);
    });
    Ok(())
}

/// Updates the online softmax `token` with a chunk of logits whose first vocabulary id is `start`; replaces the logits
/// by e^(z − max).
#[inline(always)]
fn update_softmax(token: &mut TokenState, z: &mut [f32], start: usize) {
    let new_max = token.max.max(max(z));
    token.correction = exp(token.max - new_max);
    token.max = new_max;
    if let Some(logit) = token.target.checked_sub(start).and_then(|i| z.get(i)) {
        token.logit = *logit;
    }
    exp_each(z, |z| z - new_max);
    token.total = token.total * token.correction + sum(z, |z| z);
}

/// Computes before = sums, each token rescaled to its new maximum.
fn rescale_into(before: &mut [f32], sums: &[f32], tokens: &[TokenState], c: usize) {
    let pairs = before.par_chunks_exact_mut(c).zip(sums.par_chunks_exact(c));
    pairs.zip(tokens).for_each_on_team(|((before, sums), token)| {
        before.iter_mut().zip(sums).for_each(|(b, s)| *b = s * token.correction);
    });
}

/// Computes dh of the tokens from `sums` (n, C).
fn input_gradient<E: Storage>(dh: &mut [E], tokens: &[TokenState], sums: &[f32], head: &LmHead, scale: f32) {
    for (token, sums) in tokens.iter().zip(sums.chunks_exact(head.c)) {
        let dh = &mut dh[token.t * head.c..][..head.c];
        match head.row_of(token.target).map(|v| head.rows(v..v + 1)) {
            Some(Elements::F32(target)) => input_gradient_row(dh, token, sums, target, scale),
            Some(Elements::BF16(target)) => input_gradient_row(dh, token, sums, target, scale),
            None => vectorize(
                #[inline(always)]
                || dh.iter_mut().zip(sums).for_each(|(dh, sum)| *dh = E::put(scale * (sum / token.total))),
            ),
        }
    }
}

/// Computes dh = scale·(Σ p·head − head_target) of one token.
fn input_gradient_row<E: Storage, W: Storage>(
    dh: &mut [E],
    token: &TokenState,
    sums: &[f32],
    target: &[W],
    scale: f32,
) {
    vectorize(
        #[inline(always)]
        || {
            for ((dh, sum), target) in dh.iter_mut().zip(sums).zip(target) {
                *dh = E::put(scale * (sum / token.total - target.get()));
            }
        },
    );
}

/// Computes dhead += scale·(p − [v = target])ᵀ·x with recomputed logits: p needs the sum over the whole vocabulary.
fn head_gradient_pass<E: Storage>(
    dhead: &mut [f32],
    tokens: &[TokenState],
    workspace: &mut HostWorkspace,
    head: &LmHead,
    scale: f32,
) -> Result<()> {
    let HostWorkspace { x, z, p, dhead: before, .. } = workspace;
    let (Some(p), Some(before)) = (p, before) else { return Ok(()) };
    let (n, c) = (tokens.len(), head.c);
    for chunk in head.chunks() {
        let z = &mut z.slice_mut::<f32>()?[..n * chunk.len()]; // (n, chunk)
        head.logits(z, n, elements(x)?, chunk.clone());
        z.par_chunks_exact_mut(chunk.len()).zip(tokens).for_each_on_team(|(z, token)| {
            vectorize(
                #[inline(always)]
                || z.iter_mut().for_each(|z| *z = scale * (exp(*z - token.max) / token.total)),
            );
            if let Some(p) = token.target.checked_sub(head.first + chunk.start).and_then(|i| z.get_mut(i)) {
                *p -= scale;
            }
        });
        store_rounded(p.slice_mut::<E>()?, z);
        let dhead = &mut dhead[chunk.start * c..chunk.end * c]; // (chunk, C)
        let before = &mut before.slice_mut::<f32>()?[..dhead.len()];
        before.copy_from_slice(dhead);
        let a = Matrix::mn_major(elements(p)?, chunk.len());
        let b = Matrix::mn_major(elements(x)?, c);
        let size = (chunk.len(), c);
        multiply(
            dhead,
            size,
            AccumulatorInit::From(before),
            &[ProductTerm { a, b, depth: n }],
            head.precision,
        );
    }
    Ok(())
}

/// Computes y = x · factor, a scalar.
pub fn scale<E: Storage>(y: &mut Tensor, x: &Tensor, factor: &Tensor) -> Result<()> {
    let factor = factor.slice::<f32>()?[0];
    let x = x.slice::<E>()?.par_chunks(TASK_SIZE);
    y.slice_mut::<E>()?.par_chunks_mut(TASK_SIZE).zip(x).for_each_on_team(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = E::put(x.get() * factor));
    });
    Ok(())
}
