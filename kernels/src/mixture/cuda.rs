//! The launches of `mixture.cu`.

use crate::cuda::{HEADERS, element, elements};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Result, Tensor};

/// Forward and backward.
pub static SOURCE: Source = Source {
    name: "mixture.cu",
    text: include_str!("mixture.cu"),
    headers: HEADERS,
    constants: &[],
    variants: elements,
};

/// Threads of a block.
const THREADS: usize = 128;

/// Computes U_e = s g_e S_e.
pub fn forward(cuda: &Cuda, u: &mut Tensor, s: &Tensor, logits: &Tensor, scale: f32) -> Result<()> {
    start(cuda, "gate", vec![Arg::Out(u), Arg::In(s), Arg::In(logits)], (s, logits), scale)
}

/// Computes dS and the gradient of the logits.
pub fn backward(
    cuda: &Cuda,
    [ds, dl]: [&mut Tensor; 2],
    du: &Tensor,
    s: &Tensor,
    logits: &Tensor,
    scale: f32,
) -> Result<()> {
    let args = vec![Arg::Out(ds), Arg::Out(dl), Arg::In(du), Arg::In(s), Arg::In(logits)];
    start(cuda, "gate_backward", args, (s, logits), scale)
}

fn start<'a>(
    cuda: &Cuda,
    kernel: &str,
    mut args: Vec<Arg<'a>>,
    (s, logits): (&'a Tensor, &'a Tensor),
    scale: f32,
) -> Result<()> {
    let ((rows, width), experts) = (s.shape().as_matrix(), logits.shape().as_matrix().1);
    args.push(Arg::F32(scale));
    args.extend([rows, experts, width / experts].map(|n| Arg::I32(n as i32)));
    let kernel = cuda.kernel(&SOURCE, element(s.dtype()), kernel)?;
    // SAFETY: the op has checked that S and the logits fit together, what is written is shaped like them, and the
    // kernels guard the last row.
    unsafe { kernel.launch(Grid::new(rows.div_ceil(THREADS / 32), THREADS), &mut args) }
}
