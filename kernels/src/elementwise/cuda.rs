//! The launch of an elementwise kernel, and the kernels of `elementwise.cu`.

use crate::cuda::{PRELUDE, element, elements, flat_grid};
use codelsi_engine::cuda::{Arg, Cuda, Source};
use codelsi_engine::{Result, Tensor};

/// Sums, activations and conversions.
pub static SOURCE: Source = source("elementwise.cu", include_str!("elementwise.cu"));

/// Returns a source of elementwise kernels, which includes `map.cuh`, with a variant for each storage type.
pub const fn source(name: &'static str, text: &'static str) -> Source {
    const HEADERS: &[(&str, &str)] = &[PRELUDE, ("map.cuh", include_str!("map.cuh"))];
    Source { name, text, headers: HEADERS, constants: &[], variants: elements }
}

/// Launches a kernel of such a source, `kernel(outputs…, inputs…, n)`, with a thread for each pack of `pack` elements.
/// All tensors have one shape.
///
/// # Errors
/// When there is no such kernel, or the launch fails.
pub fn launch<const INPUTS: usize, const OUTPUTS: usize>(
    cuda: &Cuda,
    (source, kernel): (&'static Source, &str),
    pack: usize,
    outputs: [&mut Tensor; OUTPUTS],
    inputs: [&Tensor; INPUTS],
) -> Result<()> {
    let n = inputs[0].shape().elements();
    let kernel = cuda.kernel(source, element(inputs[0].dtype()), kernel)?;
    let args = outputs.into_iter().map(Arg::Out).chain(inputs.into_iter().map(Arg::In));
    let mut args: Vec<Arg> = args.chain([Arg::I64(n as i64)]).collect();
    // SAFETY: the tensors have one shape, the last argument is their number of elements, and an elementwise kernel goes
    // no further.
    unsafe { kernel.launch(flat_grid(n, pack), &mut args) }
}
