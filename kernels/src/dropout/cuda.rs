//! The launch of `drop.cu`.

use crate::cuda::{HEADERS, STORAGE, flat_grid, packed};
use crate::lora::Dropout;
use codelsi_engine::cuda::{Arg, Cuda, Source};
use codelsi_engine::{Result, Tensor};

/// Masked and scaled channels.
pub static SOURCE: Source = Source {
    name: "drop.cu",
    text: include_str!("drop.cu"),
    headers: HEADERS,
    constants: &[],
    variants: || STORAGE.into_iter().flat_map(|e| [4, 1].map(|vec| packed(e, vec))).collect(),
};

/// Computes y = x ⊙ mask / (1 − p).
pub fn drop(cuda: &Cuda, y: &mut Tensor, x: &Tensor, dropout: &Dropout) -> Result<()> {
    let (rows, columns) = x.shape().as_matrix();
    let vec = if (columns | dropout.first_channel).is_multiple_of(4) { 4 } else { 1 };
    let kernel = cuda.kernel(&SOURCE, packed(x.dtype(), vec), "dropout")?;
    let key = dropout.key;
    let args = &mut [
        Arg::Out(y),
        Arg::In(x),
        Arg::In(&dropout.tokens),
        Arg::U64(key.seed),
        Arg::U32(key.step),
        Arg::U32(key.site),
        Arg::F32(dropout.p),
        Arg::F32(dropout.keep_scale()),
        Arg::I32(dropout.first_channel as i32),
        Arg::I32(rows as i32),
        Arg::I32(columns as i32),
    ];
    // SAFETY: the op has checked that tokens are x's rows; y is shaped like x, and the kernel stays below T·C.
    unsafe { kernel.launch(flat_grid(rows * columns, vec), args) }
}
