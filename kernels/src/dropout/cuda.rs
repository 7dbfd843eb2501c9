//! The launch of `drop.cu`.

use super::Dropout;
use crate::cuda::{PRELUDE, STORAGE, flat_grid, packed};
use codelsi_engine::cuda::{Arg, Cuda, Source};
use codelsi_engine::{Result, Tensor};

/// The prelude, and the mask of a block of channels.
pub(crate) const WITH_MASK: &[(&str, &str)] = &[PRELUDE, ("keep.cuh", include_str!("keep.cuh"))];

/// Channels that share a call of Philox.
const BLOCK: usize = 8;

/// Masked and scaled channels.
pub static SOURCE: Source = Source {
    name: "drop.cu",
    text: include_str!("drop.cu"),
    headers: WITH_MASK,
    constants: &[],
    variants: || STORAGE.into_iter().flat_map(|e| [BLOCK, 1].map(|vec| packed(e, vec))).collect(),
};

/// Computes y = x ⊙ mask / (1 − p).
pub fn drop(cuda: &Cuda, y: &mut Tensor, x: &Tensor, dropout: &Dropout) -> Result<()> {
    let (rows, columns) = x.shape().as_matrix();
    let vec = if (columns | dropout.first_channel).is_multiple_of(BLOCK) { BLOCK } else { 1 };
    let kernel = cuda.kernel(&SOURCE, packed(x.dtype(), vec), "dropout")?;
    let key = dropout.key;
    let args = &mut [
        Arg::Out(y),
        Arg::In(x),
        Arg::In(&dropout.tokens),
        Arg::U64(key.seed),
        Arg::U32(key.step),
        Arg::U32(key.site),
        Arg::U32(dropout.rate.threshold()),
        Arg::F32(dropout.rate.keep_scale()),
        Arg::I32(dropout.first_channel as i32),
        Arg::I32(rows as i32),
        Arg::I32(columns as i32),
    ];
    // SAFETY: the op has checked that tokens are x's rows; y is shaped like x, and the kernel stays below T·C.
    unsafe { kernel.launch(flat_grid(rows * columns, vec), args) }
}
