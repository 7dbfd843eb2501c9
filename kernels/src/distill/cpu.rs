//! The CPU twin: chunks of gathered tokens of student and teacher against chunks of the vocabulary, twice where dh is
//! wanted.

use super::Distill;
use crate::gemm::cpu::{AccumulatorInit, Matrix, ProductTerm, multiply};
use crate::gemm::elements;
use crate::simd::{Storage, exp, max, sum, sum2, vectorize};
use crate::xent::IGNORE_INDEX;
use crate::xent::head::{LmHead, TOKEN_CHUNK, VOCAB_CHUNK, check_targets, gather, store_rounded};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Outputs of forward, the gradient included.
pub struct Outputs {
    pub loss: Tensor,
    pub divergences: Tensor,
    /// (T, C), if wanted.
    pub dh: Option<Tensor>,
}

/// Working memory, of a size that does not grow with T and V.
pub struct HostWorkspace {
    tiles: LogitTiles,
    gradient: Option<GradientWorkspace>,
}

/// Gathered tokens of student and teacher, and a tile of the logits of each.
struct LogitTiles {
    /// Rows of h and of g, each (TOKEN_CHUNK, C).
    x: [Tensor; 2],
    /// Each (TOKEN_CHUNK, VOCAB_CHUNK).
    z: [Tensor; 2],
}

/// Buffers of the gradient dh.
struct GradientWorkspace {
    /// q − p of a tile, in the storage type of h (TOKEN_CHUNK, VOCAB_CHUNK).
    difference: Tensor,
    /// Σ (q − p)·head (TOKEN_CHUNK, C), and its value before the current chunk.
    sums: [Tensor; 2],
}

impl HostWorkspace {
    pub fn new(cx: &Ctx, h: &Tensor, head: &Tensor, out: &Outputs) -> Self {
        let ((t, c), (v, _)) = (h.shape().as_matrix(), head.shape().as_matrix());
        let (rows, chunk) = (t.min(TOKEN_CHUNK), v.min(VOCAB_CHUNK));
        let hidden = |dtype| [(); 2].map(|()| cx.scratch([rows, c], dtype));
        let logits = |dtype| cx.device().empty(Label::Logits, [rows, chunk], dtype);
        HostWorkspace {
            tiles: LogitTiles { x: hidden(h.dtype()), z: [(); 2].map(|()| logits(DType::F32)) },
            gradient: out
                .dh
                .as_ref()
                .map(|_| GradientWorkspace { difference: logits(h.dtype()), sums: hidden(DType::F32) }),
        }
    }
}

impl LogitTiles {
    /// Computes the logits (n, chunk) of student and teacher.
    fn compute(&mut self, n: usize, head: &LmHead, chunk: &Range<usize>) -> Result<[&mut [f32]; 2]> {
        let LogitTiles { x, z: [student, teacher] } = self;
        let tiles = [student.slice_mut::<f32>()?, teacher.slice_mut::<f32>()?];
        let [student, teacher] = tiles.map(|z| &mut z[..n * chunk.len()]);
        head.logits(student, n, elements(&x[0])?, chunk.clone());
        head.logits(teacher, n, elements(&x[1])?, chunk.clone());
        Ok([student, teacher])
    }
}

/// Maximum of the logits so far, and Σ e^(z − max).
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    total: f32,
}

impl Softmax {
    const EMPTY: Softmax = Softmax { max: f32::NEG_INFINITY, total: 0.0 };

    /// Adds a chunk of logits; returns the factor that brings other sums over the earlier ones to the new maximum.
    #[inline(always)]
    fn add(&mut self, z: &[f32]) -> f32 {
        let new_max = self.max.max(max(z));
        let correction = exp(self.max - new_max);
        self.max = new_max;
        self.total = self.total * correction + sum(z, |z| exp(z - new_max));
        correction
    }

    #[inline(always)]
    fn probability(self, z: f32) -> f32 {
        exp(z - self.max) / self.total
    }
}

/// A labelled token with its running statistics.
struct TokenState {
    t: usize,
    student: Softmax,
    teacher: Softmax,
    /// Running Σ e^(z' − max')·(z' − z).
    gap: f32,
}

impl TokenState {
    fn new(t: usize) -> Self {
        TokenState { t, student: Softmax::EMPTY, teacher: Softmax::EMPTY, gap: 0.0 }
    }

    /// KL(p ‖ q). The logarithms of the sums are subtracted as one, so that equal statistics give 0.
    fn divergence(&self) -> f32 {
        let Softmax { max, total } = self.student;
        self.gap / self.teacher.total + (max - self.teacher.max) + (total / self.teacher.total).ln()
    }
}

/// Computes loss and divergences, and dh if `out` has a tensor for it.
pub fn forward<E: Storage>(
    out: &mut Outputs,
    workspace: &mut HostWorkspace,
    [h, g, head, targets]: [&Tensor; 4],
    &Distill { scale, labelled }: &Distill,
) -> Result<()> {
    let targets = targets.slice::<i32>()?; // (T)
    let (vocab, c) = head.shape().as_matrix();
    check_targets(targets, vocab, labelled)?;
    let head = LmHead::new(head, 0, h)?;
    let (h, g) = (h.slice::<E>()?, g.slice::<E>()?); // (T, C)
    let divergences = out.divergences.slice_mut::<f32>()?; // (T)
    divergences.fill(0.0);
    out.dh.iter_mut().try_for_each(|dh| dh.bytes_mut().map(|bytes| bytes.fill(0)))?;
    let counted: Vec<usize> = (0..targets.len()).filter(|&t| targets[t] != IGNORE_INDEX).collect();
    for chunk in counted.chunks(TOKEN_CHUNK) {
        let mut tokens: Vec<TokenState> = chunk.iter().copied().map(TokenState::new).collect();
        for (x, from) in workspace.tiles.x.iter_mut().zip([h, g]) {
            gather(x.slice_mut::<E>()?, from, chunk.iter().copied(), c);
        }
        statistics_pass(&mut tokens, &mut workspace.tiles, &head)?;
        tokens.iter().for_each(|token| divergences[token.t] = token.divergence());
        if let (Some(dh), Some(gradient)) = (&mut out.dh, &mut workspace.gradient) {
            let sums = gradient_pass::<E>(&tokens, &mut workspace.tiles, gradient, &head)?; // (n, C)
            let dh = dh.slice_mut::<E>()?;
            for (token, sums) in tokens.iter().zip(sums.chunks_exact(c)) {
                dh[token.t * c..][..c].iter_mut().zip(sums).for_each(|(dh, sum)| *dh = E::put(scale * sum));
            }
        }
    }
    let total: f64 = divergences.iter().map(|&d| d as f64).sum();
    out.loss.slice_mut::<f32>()?[0] = (total * scale as f64) as f32;
    Ok(())
}

/// Computes the statistics of every token online over the vocabulary chunks.
fn statistics_pass(tokens: &mut [TokenState], tiles: &mut LogitTiles, head: &LmHead) -> Result<()> {
    for chunk in head.chunks() {
        let [student, teacher] = tiles.compute(tokens.len(), head, &chunk)?;
        let rows = student.par_chunks_exact(chunk.len()).zip(teacher.par_chunks_exact(chunk.len()));
        rows.zip(&mut *tokens).for_each_on_team(|((student, teacher), token)| {
            vectorize(
                #[inline(always)]
                || update_statistics(token, student, teacher),
            )
        });
    }
    Ok(())
}

/// Updates `token` with a chunk of the logits of student and teacher.
#[inline(always)]
fn update_statistics(token: &mut TokenState, student: &[f32], teacher: &[f32]) {
    token.student.add(student);
    let correction = token.teacher.add(teacher);
    let (max, teacher) = (token.teacher.max, &teacher[..student.len()]);
    let gap = sum2(student, teacher, |student, teacher| exp(teacher - max) * (teacher - student));
    token.gap = token.gap * correction + gap;
}

/// Returns Σ (q − p)·head (n, C) of the tokens. Their logits are recomputed: q and p need the sums over the whole
/// vocabulary.
fn gradient_pass<'w, E: Storage>(
    tokens: &[TokenState],
    tiles: &mut LogitTiles,
    workspace: &'w mut GradientWorkspace,
    head: &LmHead,
) -> Result<&'w [f32]> {
    let GradientWorkspace { difference, sums: [sums, before] } = workspace;
    let (n, c) = (tokens.len(), head.c);
    let sums = &mut sums.slice_mut::<f32>()?[..n * c];
    for chunk in head.chunks() {
        let [student, teacher] = tiles.compute(n, head, &chunk)?;
        let rows = student.par_chunks_exact_mut(chunk.len()).zip(teacher.par_chunks_exact(chunk.len()));
        rows.zip(tokens).for_each_on_team(|((student, teacher), token)| {
            vectorize(
                #[inline(always)]
                || subtract_probabilities(token, student, teacher),
            )
        });
        store_rounded(difference.slice_mut::<E>()?, student);
        let start = match chunk.start {
            0 => AccumulatorInit::Zero,
            _ => {
                let before = &mut before.slice_mut::<f32>()?[..n * c];
                before.copy_from_slice(sums);
                AccumulatorInit::From(before)
            }
        };
        let a = Matrix::k_major(elements(difference)?, chunk.len());
        let b = Matrix::mn_major(head.rows(chunk.clone()), c);
        multiply(sums, (n, c), start, &[ProductTerm { a, b, depth: chunk.len() }], head.precision);
    }
    Ok(sums)
}

/// Replaces the student's logits by q − p.
#[inline(always)]
fn subtract_probabilities(token: &TokenState, student: &mut [f32], teacher: &[f32]) {
    for (z, teacher) in student.iter_mut().zip(teacher) {
        *z = token.student.probability(*z) - token.teacher.probability(*teacher);
    }
}
