//! The launches of `distill.cu`, and the products between them.

use super::Distill;
use super::cpu::Outputs;
use crate::cuda::{all_packed, packed};
use crate::gemm::cuda::{OperandLayout, RowSlice, multiply};
use crate::xent::labelled::{
    HEADERS, LabelledTokens, PACKS, THREADS, TILE, chunk_rows, head_rows, logits, tiles,
};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source};
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use std::ops::Range;

/// The steps between the matrix products.
pub static SOURCE: Source = Source {
    name: "distill.cu",
    text: include_str!("distill.cu"),
    headers: HEADERS,
    constants: &[Define::int("THREADS", THREADS), Define::int("PACKS", PACKS), Define::int("STATE", STATE)],
    variants: all_packed,
};

/// 32-bit words of a token's state.
const STATE: usize = 5;

/// Computes loss and divergences, and dh if `out` has a tensor for it.
pub fn forward(
    cx: &Ctx,
    cuda: &Cuda,
    out: &mut Outputs,
    [h, g, head, targets]: [&Tensor; 4],
    &Distill { scale, labelled }: &Distill,
) -> Result<()> {
    let pass = DistillLaunches { tokens: LabelledTokens { cx, cuda, h, targets }, g, head };
    pass.tokens.clear_others(out.dh.as_mut(), &mut out.divergences)?;
    let rows = pass.tokens.list(head.shape().as_matrix().0, labelled)?;
    if labelled > 0 {
        let mut work = DeviceWorkspace::new(&pass, labelled, out);
        for first in (0..labelled).step_by(work.chunk) {
            let chunk = first..labelled.min(first + work.chunk);
            pass.tokens.gather(&mut work.x[0], h, &rows, &chunk)?;
            pass.tokens.gather(&mut work.x[1], g, &rows, &chunk)?;
            pass.statistics(&mut work, chunk.len())?;
            pass.gradient(&mut work, chunk.len())?;
            pass.finish(out, &work, &rows, &chunk, scale)?;
        }
    }
    pass.tokens.sum(&mut out.loss, &out.divergences, scale)
}

/// The inputs that every step reads.
struct DistillLaunches<'a> {
    tokens: LabelledTokens<'a>,
    /// (T, C)
    g: &'a Tensor,
    /// (V, C)
    head: &'a Tensor,
}

/// Working memory, of a size that does not grow with T and V.
struct DeviceWorkspace {
    /// Labelled tokens of a chunk.
    chunk: usize,
    /// The gathered rows of h and of g, each (chunk, C).
    x: [Tensor; 2],
    /// Tiles of logits of student and teacher, each (chunk, TILE).
    z: [Tensor; 2],
    /// The state of each token (chunk, STATE).
    states: Tensor,
    gradient: Option<GradientWorkspace>,
}

/// Buffers of the gradient dh.
struct GradientWorkspace {
    /// q − p of a tile, in h's storage type (chunk, TILE).
    difference: Tensor,
    /// Σ (q − p)·head (chunk, C).
    sums: Tensor,
}

impl DeviceWorkspace {
    fn new(pass: &DistillLaunches, count: usize, out: &Outputs) -> Self {
        let (cx, e, (v, c)) = (pass.tokens.cx, pass.g.dtype(), pass.head.shape().as_matrix());
        let chunk = count.min(chunk_rows(pass.tokens.cuda.properties().multiprocessors));
        let tile = v.min(TILE);
        let logits = |dtype| cx.device().empty(Label::Logits, [chunk, tile], dtype);
        DeviceWorkspace {
            chunk,
            x: [(); 2].map(|()| cx.scratch([chunk, c], e)),
            z: [(); 2].map(|()| logits(DType::F32)),
            states: cx.scratch([chunk, STATE], DType::F32),
            gradient: out.dh.as_ref().map(|_| GradientWorkspace {
                difference: logits(e),
                sums: cx.scratch([chunk, c], DType::F32),
            }),
        }
    }
}

impl DistillLaunches<'_> {
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        tiles(self.head.shape().as_matrix().0)
    }

    /// Computes the logits of a tile, of student and teacher.
    fn logits(&self, work: &mut DeviceWorkspace, n: usize, tile: &Range<usize>) -> Result<()> {
        let LabelledTokens { cx, cuda, .. } = self.tokens;
        work.z.iter_mut().zip(&work.x).try_for_each(|(z, x)| logits(cx, cuda, z, (x, n), (self.head, tile)))
    }

    /// Updates the states of `n` tokens over the tiles.
    fn statistics(&self, work: &mut DeviceWorkspace, n: usize) -> Result<()> {
        for tile in self.tiles() {
            self.logits(work, n, &tile)?;
            let DeviceWorkspace { z: [student, teacher], states, .. } = work;
            let args = &mut [
                Arg::InOut(states),
                Arg::In(student),
                Arg::In(teacher),
                int(tile.start),
                int(tile.len()),
            ];
            self.start("distill_follow", Grid::new(n, THREADS), args)?;
        }
        Ok(())
    }

    /// Computes Σ (q − p)·head of `n` tokens, if dh is wanted. Their logits are recomputed: q and p need the sums over all
    /// tiles.
    fn gradient(&self, work: &mut DeviceWorkspace, n: usize) -> Result<()> {
        if work.gradient.is_none() {
            return Ok(());
        }
        for tile in self.tiles() {
            self.logits(work, n, &tile)?;
            let DeviceWorkspace { z: [student, teacher], states, gradient: Some(gradient), .. } = work else {
                return Ok(());
            };
            let args = &mut [
                Arg::InOut(&mut gradient.difference),
                Arg::In(student),
                Arg::In(teacher),
                Arg::In(states),
                int(tile.len()),
            ];
            self.start("distill_difference", Grid::new(n, THREADS), args)?;
            let difference = RowSlice { t: &gradient.difference, first: 0, rows: n };
            let (operands, add) = ([difference, head_rows(self.head, &tile)], tile.start > 0);
            let LabelledTokens { cx, cuda, .. } = self.tokens;
            multiply(cx, cuda, &mut gradient.sums, (0, n), add, OperandLayout::NN, operands)?;
        }
        Ok(())
    }

    fn finish(
        &self,
        out: &mut Outputs,
        work: &DeviceWorkspace,
        rows: &Tensor,
        chunk: &Range<usize>,
        scale: f32,
    ) -> Result<()> {
        let args = &mut [
            Arg::MaybeInOut(out.dh.as_mut()),
            Arg::InOut(&mut out.divergences),
            Arg::Maybe(work.gradient.as_ref().map(|gradient| &gradient.sums)),
            Arg::In(&work.states),
            Arg::In(rows),
            Arg::F32(scale),
            int(chunk.start),
            int(self.head.shape().as_matrix().1),
        ];
        self.start("distill_finish", self.tokens.row_grid(chunk.len()), args)
    }

    fn start(&self, kernel: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
        let variant = packed(self.g.dtype(), self.tokens.vec());
        let kernel = self.tokens.cuda.kernel(&SOURCE, variant, kernel)?;
        // SAFETY: the op has checked the shapes, listed tokens are below T, and tiles are within V and as wide as blocks
        // can hold.
        unsafe { kernel.launch(grid, args) }
    }
}

fn int<'a>(n: usize) -> Arg<'a> {
    Arg::I32(n as i32)
}
