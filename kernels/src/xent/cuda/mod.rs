//! The launches of `xent.cu`, and the products between them.

pub mod labelled;

use super::Xent;
use super::cpu::{Outputs, SoftmaxStats};
use crate::cuda::{all_weighted, flat_grid, weighted, wide};
use crate::gemm::cuda::{Accumulate, OperandLayout, RowSlice, multiply};
use crate::rows::RowShard;
use codelsi_engine::comm::ReduceOp;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use labelled::{FEWEST, HEADERS, LabelledTokens, PACKS, THREADS, TILE, chunk_rows, head_rows, logits, tiles};
use std::ops::Range;

/// The steps between the matrix products.
pub static SOURCE: Source = Source {
    name: "xent.cu",
    text: include_str!("../xent.cu"),
    headers: HEADERS,
    constants: &[Define::int("THREADS", THREADS), Define::int("PACKS", PACKS), Define::int("STATE", STATE)],
    variants: all_weighted,
};

/// 32-bit words of a token's state.
const STATE: usize = 3;

/// Computes loss, log-probabilities, and the gradients that `out` has tensors for.
pub fn forward(
    cx: &Ctx,
    cuda: &Cuda,
    out: &mut Outputs,
    [h, head, targets]: [&Tensor; 3],
    &Xent { scale, labelled, vocabulary }: &Xent,
) -> Result<()> {
    let tokens = LabelledTokens { cx, cuda, h, targets };
    let pass = XentLaunches { tokens, head, vocabulary, scale };
    pass.tokens.clear_others(out.dh.as_mut(), &mut out.logprobs)?;
    let rows = pass.tokens.list(vocabulary.total, labelled)?;
    if labelled > 0 {
        let mut work = DeviceWorkspace::new(&pass, rows, labelled, out);
        for first in (0..labelled).step_by(work.chunk) {
            let tokens = first..labelled.min(first + work.chunk);
            pass.tokens.gather(&mut work.x, h, &work.rows, &tokens)?;
            pass.update_softmax(&mut work, &tokens)?;
            pass.reduce_over_ranks(&mut work, &tokens)?;
            pass.finish(out, &work, &tokens)?;
            if let Some(dhead) = &mut out.dhead {
                pass.head_gradient(dhead, &mut work, &tokens)?;
            }
        }
    } else if let Some(dhead) = &mut out.dhead {
        dhead.zero()?;
    }
    pass.tokens.sum(&mut out.loss, &out.logprobs, -scale)
}

/// Computes y = x · factor, a scalar in device memory.
pub fn scale(cuda: &Cuda, y: &mut Tensor, x: &Tensor, factor: &Tensor) -> Result<()> {
    let n = x.shape().elements();
    let args = &mut [Arg::Out(y), Arg::In(x), Arg::In(factor), Arg::I64(n as i64)];
    let grid = flat_grid(n, wide(x.dtype()));
    start(cuda, "xent_scale", weighted(x.dtype(), x.dtype(), wide(x.dtype())), grid, args)
}

/// The inputs that every step reads.
struct XentLaunches<'a> {
    tokens: LabelledTokens<'a>,
    /// (V, C)
    head: &'a Tensor,
    /// The rows of the vocabulary that the head holds.
    vocabulary: RowShard,
    scale: f32,
}

/// Working memory; only the list of labelled tokens grows with T.
struct DeviceWorkspace {
    /// Labelled tokens of a chunk.
    chunk: usize,
    /// The labelled tokens, ascending (T).
    rows: Tensor,
    /// The gathered rows of h (chunk, C).
    x: Tensor,
    /// A tile of logits (chunk, TILE).
    z: Tensor,
    /// The tile as probabilities, in h's storage type (chunk, TILE).
    p: Option<Tensor>,
    /// Σ e^(z − max)·head (chunk, C).
    sums: Option<Tensor>,
    /// The state of each token (chunk, STATE).
    states: Tensor,
    /// Factors (chunk), f32, that bring each token's earlier sums to its new maximum.
    corrections: Tensor,
    /// Buffers of the all-reduces, when ranks hold shards of the head.
    shares: Option<SoftmaxStats>,
}

impl DeviceWorkspace {
    fn new(pass: &XentLaunches, rows: Tensor, count: usize, out: &Outputs) -> Self {
        let (cx, e, (v, c)) = (pass.tokens.cx, pass.tokens.h.dtype(), pass.sizes());
        // dhead is summed a chunk at a time, and has the same bits on every GPU.
        let chunk = match out.dhead {
            Some(_) => FEWEST,
            None => chunk_rows(pass.tokens.cuda.properties().multiprocessors),
        };
        let chunk = count.min(chunk);
        let tile = v.min(TILE);
        let wanted = out.dh.is_some() || out.dhead.is_some();
        let logits = |dtype| cx.device().empty(Label::Logits, [chunk, tile], dtype);
        DeviceWorkspace {
            chunk,
            rows,
            x: cx.scratch([chunk, c], e),
            z: logits(DType::F32),
            p: wanted.then(|| logits(e)),
            sums: out.dh.as_ref().map(|_| cx.scratch([chunk, c], DType::F32)),
            states: cx.scratch([chunk, STATE], DType::F32),
            corrections: cx.scratch([chunk], DType::F32),
            shares: (v < pass.vocabulary.total).then(|| SoftmaxStats::new(cx, chunk)),
        }
    }
}

impl XentLaunches<'_> {
    /// V and C.
    fn sizes(&self) -> (usize, usize) {
        self.head.shape().as_matrix()
    }

    /// Updates maximum and sum of every token over the tiles, and Σ e^(z − max)·head if dh is wanted.
    fn update_softmax(&self, work: &mut DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let n = tokens.len();
        for tile in tiles(self.sizes().0) {
            logits(self.tokens.cx, self.tokens.cuda, &mut work.z, (&work.x, n), (self.head, &tile))?;
            let p = work.p.as_mut().filter(|_| work.sums.is_some());
            let args = &mut [
                Arg::MaybeInOut(p),
                Arg::InOut(&mut work.states),
                Arg::InOut(&mut work.corrections),
                Arg::In(&work.z),
                Arg::In(self.tokens.targets),
                Arg::In(&work.rows),
                int(tokens.start),
                int(self.vocabulary.first),
                int(tile.start),
                int(tile.len()),
            ];
            self.start("xent_follow", Grid::new(n, THREADS), args)?;
            let (Some(sums), Some(p)) = (&mut work.sums, &work.p) else { continue };
            let p = RowSlice { t: p, first: 0, rows: n };
            let operands = [p, head_rows(self.head, &tile)];
            let accumulate = match tile.start {
                0 => Accumulate::Overwrite,
                _ => Accumulate::Rescale(&work.corrections),
            };
            let LabelledTokens { cx, cuda, .. } = self.tokens;
            multiply(cx, cuda, sums, (0, n), accumulate, OperandLayout::NN, operands)?;
        }
        Ok(())
    }

    /// All-reduces the softmax states over the ranks' shards of the logits.
    fn reduce_over_ranks(&self, work: &mut DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let DeviceWorkspace { states, corrections, shares: Some(shares), .. } = work else { return Ok(()) };
        let (n, stride) = (tokens.len(), shares.max.shape().elements());
        let grid = || flat_grid(n, 1);
        let args = &mut [Arg::InOut(&mut shares.max), Arg::In(states), int(n)];
        self.start("xent_largest", grid(), args)?;
        self.tokens.cx.comm().all_reduce(&mut shares.max, ReduceOp::Max)?;
        let args = &mut [
            Arg::InOut(&mut shares.sums),
            Arg::InOut(states),
            Arg::InOut(corrections),
            Arg::In(&shares.max),
            int(stride),
            int(n),
        ];
        self.start("xent_rebase", grid(), args)?;
        self.tokens.cx.comm().all_reduce(&mut shares.sums, ReduceOp::Sum)?;
        let args = &mut [Arg::InOut(states), Arg::In(&shares.sums), int(stride), int(n)];
        self.start("xent_joined", grid(), args)
    }

    fn finish(&self, out: &mut Outputs, work: &DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let args = &mut [
            Arg::MaybeInOut(out.dh.as_mut()),
            Arg::InOut(&mut out.logprobs),
            Arg::Maybe(work.sums.as_ref()),
            Arg::Maybe(work.shares.as_ref().map(|_| &work.corrections)),
            Arg::In(&work.states),
            Arg::In(self.head),
            Arg::In(self.tokens.targets),
            Arg::In(&work.rows),
            Arg::F32(self.scale),
            int(tokens.start),
            int(self.vocabulary.first),
            int(self.sizes().0),
            int(self.sizes().1),
        ];
        self.start("xent_finish", self.tokens.row_grid(tokens.len()), args)
    }

    /// Computes dhead += dzᵀ · x with recomputed logits: dz needs the sum over all tiles.
    fn head_gradient(
        &self,
        dhead: &mut Tensor,
        work: &mut DeviceWorkspace,
        tokens: &Range<usize>,
    ) -> Result<()> {
        let n = tokens.len();
        for tile in tiles(self.sizes().0) {
            logits(self.tokens.cx, self.tokens.cuda, &mut work.z, (&work.x, n), (self.head, &tile))?;
            let Some(p) = &mut work.p else { return Ok(()) };
            let args = &mut [
                Arg::InOut(p),
                Arg::In(&work.z),
                Arg::In(&work.states),
                Arg::In(self.tokens.targets),
                Arg::In(&work.rows),
                Arg::F32(self.scale),
                int(tokens.start),
                int(self.vocabulary.first + tile.start),
                int(tile.len()),
            ];
            self.start("xent_gradient", Grid::new(n, THREADS), args)?;
            let operands = [p, &work.x].map(|t| RowSlice { t, first: 0, rows: n });
            let (rows, add) = ((tile.start, tile.len()), tokens.start > 0);
            multiply(self.tokens.cx, self.tokens.cuda, dhead, rows, add, OperandLayout::TN, operands)?;
        }
        Ok(())
    }

    fn start(&self, kernel: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
        start(
            self.tokens.cuda,
            kernel,
            weighted(self.tokens.h.dtype(), self.head.dtype(), self.tokens.vec()),
            grid,
            args,
        )
    }
}

fn int<'a>(n: usize) -> Arg<'a> {
    Arg::I32(n as i32)
}

fn start(cuda: &Cuda, kernel: &str, variant: Variant, grid: Grid, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, variant, kernel)?;
    // SAFETY: the op has checked the shapes, targets are checked by the first kernel, listed tokens are below T, and
    // tiles are within V and as wide as blocks can hold.
    unsafe { kernel.launch(grid, args) }
}
