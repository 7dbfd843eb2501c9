//! The CPU twin of what is neither a matrix product nor dropout: scaling, and selection of adapters.

use crate::rows::for_each_row;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{DType, Error, Result, Tensor};
use half::bf16;

/// Computes `x *= scale`, rounded to storage.
pub(super) fn scale(x: &mut Tensor, scale: f32) -> Result<()> {
    match x.dtype() {
        DType::BF16 => for_each_row(x.slice_mut::<bf16>()?, 1 << 12, |_, x| scale_row(x, scale)),
        _ => for_each_row(x.slice_mut::<f32>()?, 1 << 12, |_, x| scale_row(x, scale)),
    }
    Ok(())
}

fn scale_row<T: Storage>(x: &mut [T], scale: f32) {
    vectorize(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = T::put(x.get() * scale)),
    );
}

/// Zeroes, in each row of `s` (T, G·R), the columns of all adapters but the selected one.
pub(super) fn select_adapter(s: &mut Tensor, choice: &[i32], rank: usize, adapters: usize) -> Result<()> {
    if let Some(t) = choice.iter().position(|&g| g >= adapters as i32) {
        let g = choice[t];
        return Err(Error::new(format!("row {t} selects adapter {g} of a stack of {adapters}")));
    }
    match s.dtype() {
        DType::BF16 => {
            for_each_row(s.slice_mut::<bf16>()?, rank * adapters, |t, s| keep_adapter(s, choice[t], rank))
        }
        _ => for_each_row(s.slice_mut::<f32>()?, rank * adapters, |t, s| keep_adapter(s, choice[t], rank)),
    }
    Ok(())
}

fn keep_adapter<T: Storage>(s: &mut [T], chosen: i32, rank: usize) {
    for (g, s) in (0..).zip(s.chunks_exact_mut(rank)) {
        if g != chosen {
            s.fill(T::put(0.0));
        }
    }
}
