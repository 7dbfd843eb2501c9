//! The launch of `sample.cu`.

use crate::cuda::{HEADERS, element, elements};
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source};
use codelsi_engine::{Ctx, DType, Result, Tensor};

/// Draws from rows of logits.
pub static SOURCE: Source = Source {
    name: "sample.cu",
    text: include_str!("sample.cu"),
    headers: HEADERS,
    constants: &[Define::int("THREADS", THREADS)],
    variants: elements,
};

/// Threads of a block, which draws for one row.
const THREADS: usize = 1024;

/// Draws a token for every row.
pub fn sample(
    cx: &Ctx,
    cuda: &Cuda,
    choices: &mut Tensor,
    logits: &Tensor,
    params: &Tensor,
    previous: &Tensor,
) -> Result<()> {
    let (rows, vocab) = logits.shape().as_matrix();
    let work = || cx.scratch([rows, vocab], DType::F32);
    let (mut scores, mut weights) = (work(), work());
    let kernel = cuda.kernel(&SOURCE, element(logits.dtype()), "sample")?;
    let args = &mut [
        Arg::InOut(choices),
        Arg::InOut(&mut scores),
        Arg::InOut(&mut weights),
        Arg::In(logits),
        Arg::In(params),
        Arg::In(previous),
        Arg::I32(vocab as i32),
        Arg::I32(previous.shape().elements() as i32),
    ];
    // SAFETY: a block keeps to its row of V elements, of which params and choices have one, as the op has checked; the
    // kernel checks the range of previous tokens and that each is below V.
    unsafe { kernel.launch(Grid::new(rows, THREADS), args) }
}
