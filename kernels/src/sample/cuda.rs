//! The launch of `sample.cu`.

use crate::cuda::{HEADERS, element};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Ctx, DType, Result, Tensor};

/// Rows of logits.
pub static SOURCE: Source = Source {
    name: "sample.cu",
    text: include_str!("sample.cu"),
    headers: HEADERS,
    variants: &["E=bf16", "E=float"],
};

const THREADS: usize = 1024;

/// A choice for every row.
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
    let kernel = cuda.kernel(&SOURCE, &format!("E={}", element(logits.dtype())), "sample")?;
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
