//! The launches of `concat.cu`.

use crate::cuda::{HEADERS, access_width, all_packed, packed, row_threads};
use codelsi_engine::cuda::{Arg, Cuda, Grid, Source};
use codelsi_engine::{Result, Tensor};

/// A copy of rows between matrices of different width.
pub static SOURCE: Source = Source {
    name: "concat.cu",
    text: include_str!("concat.cu"),
    headers: HEADERS,
    constants: &[],
    variants: all_packed,
};

/// Copies the parts into y's columns, one launch a part.
pub fn concat(cuda: &Cuda, y: &mut Tensor, parts: &[Tensor]) -> Result<()> {
    let (dtype, (rows, columns)) = (y.dtype(), y.shape().as_matrix());
    let mut first = 0;
    for x in parts {
        let width = x.shape().as_matrix().1;
        // 16 bytes only where a part's rows begin and end on that alignment on both sides.
        let vec = [width, first, columns].map(|n| access_width(dtype, n)).into_iter().min().unwrap_or(1);
        let kernel = cuda.kernel(&SOURCE, packed(dtype, vec), "concat")?;
        let [width_arg, first_arg, columns_arg] = [width, first, columns].map(|n| Arg::I32(n as i32));
        let args = &mut [Arg::InOut(y), Arg::In(x), width_arg, first_arg, columns_arg];
        if width > 0 && rows > 0 {
            // SAFETY: the op has checked that every part has y's rows, and their widths sum to y's.
            unsafe { kernel.launch(Grid::new(rows, row_threads(width, vec)), args)? };
        }
        first += width;
    }
    Ok(())
}
