//! The launches of `adamw.cu`: one for all parameters, one for all gradients.

use super::{AdamWParam, Hyperparameters};
use crate::cuda::HEADERS;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{Ctx, DType, Label, Result, Tensor};
use std::sync::Arc;

/// The step and the norm.
pub static SOURCE: Source = Source {
    name: "adamw.cu",
    text: include_str!("adamw.cu"),
    headers: HEADERS,
    constants: &[Define::int("CHUNK", CHUNK), Define::int("THREADS", THREADS)],
    variants: || vec![Variant::PLAIN],
};

/// Elements of one block.
const CHUNK: usize = 4096;
const THREADS: usize = 256;

/// Launches one step of every parameter.
pub fn step(
    cx: &Ctx,
    cuda: &Arc<Cuda>,
    params: &mut [AdamWParam<'_>],
    hyper: &Hyperparameters,
    squares: &Tensor,
) -> Result<()> {
    let Hyperparameters { lr, beta1, beta2, eps, weight_decay, max_norm, .. } = *hyper;
    let [correction1, correction2] = hyper.bias_corrections();
    let keep = 1.0 - lr * weight_decay;
    let hyper = [lr, beta1, beta2, eps, keep, correction1, correction2, max_norm];
    let hyper = cx.device().tensor(Label::Scratch, [hyper.len()], &hyper)?;
    let mut blocks = Blocks(0);
    let mut rows: Vec<_> = params
        .iter_mut()
        .map(|AdamWParam { p, g, m, v }| {
            let [n, first] = blocks.of(g);
            [Arg::InOut(p), Arg::In(g), Arg::InOut(m), Arg::InOut(v), n, first]
        })
        .collect();
    let tensors = Arg::I32(rows.len() as i32);
    let table = cuda.pointer_table(&mut rows)?;
    start(cuda, "adamw", blocks, &mut [Arg::In(&table), Arg::In(&hyper), Arg::In(squares), tensors])
}

/// Computes sum = Σg² over all elements of all gradients: sums of blocks, then their sum; all in f64.
pub fn sum_of_squares<'a>(
    cx: &Ctx,
    cuda: &Arc<Cuda>,
    sum: &mut Tensor,
    grads: impl IntoIterator<Item = &'a Tensor>,
) -> Result<()> {
    let mut blocks = Blocks(0);
    let mut rows: Vec<_> = grads
        .into_iter()
        .map(|g| {
            let [n, first] = blocks.of(g);
            [Arg::In(g), n, first]
        })
        .collect();
    let tensors = Arg::I32(rows.len() as i32);
    let table = cuda.pointer_table(&mut rows)?;
    let count = blocks.0;
    // Pairs of words, each an f64.
    let mut parts = cx.scratch([count, 2], DType::I32);
    start(cuda, "squares", blocks, &mut [Arg::Out(&mut parts), Arg::In(&table), tensors])?;
    start(cuda, "squares_sum", Blocks(1), &mut [Arg::Out(sum), Arg::In(&parts), Arg::I32(count as i32)])
}

/// Counts the blocks of a launch over many tensors.
struct Blocks(usize);

impl Blocks {
    /// Adds a tensor's blocks; returns its number of elements and its first block.
    fn of<'a>(&mut self, t: &Tensor) -> [Arg<'a>; 2] {
        let (n, first) = (t.shape().elements(), self.0);
        self.0 += n.div_ceil(CHUNK);
        [Arg::U64(n as u64), Arg::U64(first as u64)]
    }
}

fn start(cuda: &Cuda, kernel: &str, blocks: Blocks, args: &mut [Arg]) -> Result<()> {
    let kernel = cuda.kernel(&SOURCE, Variant::PLAIN, kernel)?;
    // SAFETY: the table's rows are live tensors with the element counts they declare, the written ones unshared, and
    // every block belongs to one of them.
    unsafe { kernel.launch(Grid::new(blocks.0, THREADS), args) }
}
