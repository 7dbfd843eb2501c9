//! The CPU twin.

use super::Dropout;
use crate::rows::for_each_row;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{DType, Result, Tensor};
use half::bf16;

/// Blocks of eight channels whose random numbers are made at once: a vector of them.
const BLOCKS: usize = 16;

/// Computes `y = x ⊙ mask / (1 - p)`.
pub(crate) fn drop(y: &mut Tensor, x: &Tensor, dropout: &Dropout) -> Result<()> {
    match x.dtype() {
        DType::BF16 => drop_rows::<bf16>(y, x, dropout),
        _ => drop_rows::<f32>(y, x, dropout),
    }
}

fn drop_rows<E: Storage>(y: &mut Tensor, x: &Tensor, dropout: &Dropout) -> Result<()> {
    let columns = x.shape().as_matrix().1;
    let (x, tokens) = (x.slice::<E>()?, dropout.tokens.slice::<i32>()?);
    for_each_row(y.slice_mut::<E>()?, columns, |t, y| {
        y.copy_from_slice(&x[t * columns..][..columns]);
        mask_row(y, tokens[t], dropout);
    });
    Ok(())
}

/// Zeroes or scales up each channel of the row of one token.
pub(crate) fn mask_row<E: Storage>(row: &mut [E], token: i32, dropout: &Dropout) {
    let (threshold, up) = (dropout.rate.threshold(), dropout.rate.keep_scale());
    vectorize(
        #[inline(always)]
        || {
            let mut channel = dropout.first_channel;
            let mut rest = row;
            while !rest.is_empty() {
                let halves: [[u16; 8]; BLOCKS] =
                    dropout.key.halves_of_blocks(token as u32, channel as u32 / 8);
                let halves = &halves.as_flattened()[channel % 8..];
                let (run, after) = rest.split_at_mut(halves.len().min(rest.len()));
                channel += run.len();
                for (x, &half) in run.iter_mut().zip(halves) {
                    // Both values are computed: of a branch the compiler makes loads under a mask. Not a product with 0: a
                    // dropped NaN or infinity is gone.
                    let value = x.get();
                    let [kept, zero] = [(value * up).to_bits(), value.to_bits() & (1 << 31)];
                    let is_kept = u32::from(u32::from(half) >= threshold).wrapping_neg();
                    *x = E::put(f32::from_bits(kept & is_kept | zero & !is_kept));
                }
                rest = after;
            }
        },
    );
}
