//! The launches of `xent.cu`, and the products between them.

use super::Xent;
use super::cpu::{Outputs, SoftmaxStats};
use crate::cuda::{HEADERS, access_width, all_weighted, flat_grid, row_threads, weighted, wide};
use crate::gemm::cuda::{OperandLayout, RowSlice, multiply};
use crate::rows::RowShard;
use codelsi_engine::comm::ReduceOp;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use std::ops::Range;

/// The steps between the matrix products.
pub static SOURCE: Source = Source {
    name: "xent.cu",
    text: include_str!("xent.cu"),
    headers: HEADERS,
    constants: &[Define::int("THREADS", THREADS), Define::int("PACKS", PACKS), Define::int("STATE", STATE)],
    variants: all_weighted,
};

/// Labelled tokens of a chunk.
const ROWS: usize = 1024;
/// Rows of the head of a tile: a block holds one token's logits of a tile in registers.
const TILE: usize = THREADS * PACKS * 4;
const THREADS: usize = 256;
/// Packs of four logits that a thread holds.
const PACKS: usize = 4;
/// Threads of the one block that lists the labelled tokens.
const LISTING: usize = 1024;
/// 32-bit words of a token's state.
const STATE: usize = 4;

/// Computes loss, log-probabilities, and the gradients that `out` has tensors for.
pub fn forward(
    cx: &Ctx,
    cuda: &Cuda,
    out: &mut Outputs,
    [h, head, targets]: [&Tensor; 3],
    &Xent { scale, labelled, vocabulary }: &Xent,
) -> Result<()> {
    let pass = XentLaunches { cx, cuda, h, head, targets, vocabulary, scale };
    pass.unlabelled(out)?;
    let rows = pass.labelled(labelled)?;
    if labelled > 0 {
        let mut work = DeviceWorkspace::new(&pass, rows, labelled, out);
        for first in (0..labelled).step_by(ROWS) {
            let tokens = first..labelled.min(first + ROWS);
            pass.gather(&mut work, &tokens)?;
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
    let args = &mut [Arg::Out(&mut out.loss), Arg::In(&out.logprobs), Arg::F32(scale), int(pass.sizes().0)];
    pass.start("xent_loss", Grid::new(1, THREADS), args)
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
    cx: &'a Ctx,
    cuda: &'a Cuda,
    /// (T, C)
    h: &'a Tensor,
    /// (V, C)
    head: &'a Tensor,
    /// (T)
    targets: &'a Tensor,
    /// The rows of the vocabulary that the head holds.
    vocabulary: RowShard,
    scale: f32,
}

/// Working memory; only the list of labelled tokens grows with T.
struct DeviceWorkspace {
    /// The labelled tokens, ascending (T).
    rows: Tensor,
    /// The gathered rows of h (ROWS, C).
    x: Tensor,
    /// A tile of logits (ROWS, TILE).
    z: Tensor,
    /// The tile as probabilities, in h's storage type (ROWS, TILE).
    p: Option<Tensor>,
    /// Σ e^(z − max)·head (ROWS, C).
    sums: Option<Tensor>,
    /// The state of each token (ROWS, STATE).
    states: Tensor,
    /// Buffers of the all-reduces, when ranks hold shards of the head.
    shares: Option<SoftmaxStats>,
}

impl DeviceWorkspace {
    fn new(pass: &XentLaunches, rows: Tensor, count: usize, out: &Outputs) -> Self {
        let (cx, e, (_, v, c)) = (pass.cx, pass.h.dtype(), pass.sizes());
        let (n, tile) = (count.min(ROWS), v.min(TILE));
        let wanted = out.dh.is_some() || out.dhead.is_some();
        let logits = |dtype| cx.device().empty(Label::Logits, [n, tile], dtype);
        DeviceWorkspace {
            rows,
            x: cx.scratch([n, c], e),
            z: logits(DType::F32),
            p: wanted.then(|| logits(e)),
            sums: out.dh.as_ref().map(|_| cx.scratch([n, c], DType::F32)),
            states: cx.scratch([n, STATE], DType::F32),
            shares: (v < pass.vocabulary.total).then(|| SoftmaxStats::new(cx, n)),
        }
    }
}

impl XentLaunches<'_> {
    /// T, V and C.
    fn sizes(&self) -> (usize, usize, usize) {
        let ((t, c), (v, _)) = (self.h.shape().as_matrix(), self.head.shape().as_matrix());
        (t, v, c)
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let v = self.sizes().1;
        (0..v).step_by(TILE).map(move |start| start..v.min(start + TILE))
    }

    fn unlabelled(&self, out: &mut Outputs) -> Result<()> {
        let (t, _, c) = self.sizes();
        let dh = out.dh.as_mut();
        let args = &mut [Arg::MaybeInOut(dh), Arg::InOut(&mut out.logprobs), Arg::In(self.targets), int(c)];
        self.start("xent_unlabelled", self.row_grid(t), args)
    }

    /// The labelled tokens, `count` of them.
    fn labelled(&self, count: usize) -> Result<Tensor> {
        let (t, v) = (self.sizes().0, self.vocabulary.total);
        let mut rows = self.cx.scratch([t], DType::I32);
        let args = &mut [Arg::InOut(&mut rows), Arg::In(self.targets), int(t), int(v), int(count)];
        self.start("xent_select", Grid::new(1, LISTING), args)?;
        Ok(rows)
    }

    fn gather(&self, work: &mut DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let c = self.sizes().2;
        let args =
            &mut [Arg::InOut(&mut work.x), Arg::In(self.h), Arg::In(&work.rows), int(tokens.start), int(c)];
        self.start("xent_gather", self.row_grid(tokens.len()), args)
    }

    /// z = x · head_tileᵀ.
    fn logits(&self, work: &mut DeviceWorkspace, n: usize, tile: &Range<usize>) -> Result<()> {
        let x = RowSlice { t: &work.x, first: 0, rows: n };
        multiply(self.cx, self.cuda, &mut work.z, (0, n), false, OperandLayout::NT, [x, self.head_rows(tile)])
    }

    fn head_rows(&self, tile: &Range<usize>) -> RowSlice<'_> {
        RowSlice { t: self.head, first: tile.start, rows: tile.len() }
    }

    /// Updates maximum and sum of every token over the tiles, and Σ e^(z − max)·head if dh is wanted.
    fn update_softmax(&self, work: &mut DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let (n, c) = (tokens.len(), self.sizes().2);
        for tile in self.tiles() {
            self.logits(work, n, &tile)?;
            let p = work.p.as_mut().filter(|_| work.sums.is_some());
            let args = &mut [
                Arg::MaybeInOut(p),
                Arg::InOut(&mut work.states),
                Arg::In(&work.z),
                Arg::In(self.targets),
                Arg::In(&work.rows),
                int(tokens.start),
                int(self.vocabulary.first),
                int(tile.start),
                int(tile.len()),
            ];
            self.start("xent_follow", Grid::new(n, THREADS), args)?;
            let (Some(sums), Some(p)) = (&mut work.sums, &work.p) else { continue };
            if tile.start > 0 {
                let args = &mut [Arg::InOut(sums), Arg::In(&work.states), int(c)];
                self.start("xent_correct", Grid::new(n, THREADS), args)?;
            }
            let p = RowSlice { t: p, first: 0, rows: n };
            let operands = [p, self.head_rows(&tile)];
            multiply(self.cx, self.cuda, sums, (0, n), tile.start > 0, OperandLayout::NN, operands)?;
        }
        Ok(())
    }

    /// All-reduces the softmax states over the ranks' shards of the logits.
    fn reduce_over_ranks(&self, work: &mut DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let DeviceWorkspace { sums, states, shares: Some(shares), .. } = work else { return Ok(()) };
        let (n, stride) = (tokens.len(), shares.max.shape().elements());
        let grid = || flat_grid(n, 1);
        let args = &mut [Arg::InOut(&mut shares.max), Arg::In(states), int(n)];
        self.start("xent_largest", grid(), args)?;
        self.cx.comm().all_reduce(&mut shares.max, ReduceOp::Max)?;
        let args = &mut [
            Arg::InOut(&mut shares.sums),
            Arg::InOut(states),
            Arg::In(&shares.max),
            int(stride),
            int(n),
        ];
        self.start("xent_rebase", grid(), args)?;
        self.cx.comm().all_reduce(&mut shares.sums, ReduceOp::Sum)?;
        let args = &mut [Arg::InOut(states), Arg::In(&shares.sums), int(stride), int(n)];
        self.start("xent_joined", grid(), args)?;
        let Some(sums) = sums else { return Ok(()) };
        let args = &mut [Arg::InOut(sums), Arg::In(states), int(self.sizes().2)];
        self.start("xent_correct", Grid::new(n, THREADS), args)
    }

    fn finish(&self, out: &mut Outputs, work: &DeviceWorkspace, tokens: &Range<usize>) -> Result<()> {
        let args = &mut [
            Arg::MaybeInOut(out.dh.as_mut()),
            Arg::InOut(&mut out.logprobs),
            Arg::Maybe(work.sums.as_ref()),
            Arg::In(&work.states),
            Arg::In(self.head),
            Arg::In(self.targets),
            Arg::In(&work.rows),
            Arg::F32(self.scale),
            int(tokens.start),
            int(self.vocabulary.first),
            int(self.sizes().1),
            int(self.sizes().2),
        ];
        self.start("xent_finish", self.row_grid(tokens.len()), args)
    }

    /// Computes dhead += dzᵀ · x with recomputed logits: dz needs the sum over all tiles.
    fn head_gradient(
        &self,
        dhead: &mut Tensor,
        work: &mut DeviceWorkspace,
        tokens: &Range<usize>,
    ) -> Result<()> {
        let n = tokens.len();
        for tile in self.tiles() {
            self.logits(work, n, &tile)?;
            let Some(p) = &mut work.p else { return Ok(()) };
            let args = &mut [
                Arg::InOut(p),
                Arg::In(&work.z),
                Arg::In(&work.states),
                Arg::In(self.targets),
                Arg::In(&work.rows),
                Arg::F32(self.scale),
                int(tokens.start),
                int(self.vocabulary.first + tile.start),
                int(tile.len()),
            ];
            self.start("xent_gradient", Grid::new(n, THREADS), args)?;
            let operands = [p, &work.x].map(|t| RowSlice { t, first: 0, rows: n });
            let (rows, add) = ((tile.start, tile.len()), tokens.start > 0);
            multiply(self.cx, self.cuda, dhead, rows, add, OperandLayout::TN, operands)?;
        }
        Ok(())
    }

    /// Returns a grid of one block per row of C elements.
    fn row_grid(&self, rows: usize) -> Grid {
        Grid::new(rows, row_threads(self.sizes().2, self.vec()))
    }

    fn vec(&self) -> usize {
        access_width(self.h.dtype(), self.sizes().2)
    }

    fn start(&self, kernel: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
        start(self.cuda, kernel, weighted(self.h.dtype(), self.head.dtype(), self.vec()), grid, args)
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
