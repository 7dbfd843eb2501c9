//! The CPU twin.

use super::Dropout;
use crate::rows::for_each_row;
use crate::simd::Storage;
use codelsi_engine::{DType, Result, Tensor};
use half::bf16;

/// Computes `y = x ⊙ mask / (1 - p)`.
pub(crate) fn drop(y: &mut Tensor, x: &Tensor, dropout: &Dropout) -> Result<()> {
    let columns = x.shape().as_matrix().1;
    let tokens = dropout.tokens.slice::<i32>()?;
    let drop_row = |t: usize, y: &mut [f32]| mask_row(y, tokens[t], dropout);
    match x.dtype() {
        DType::BF16 => {
            let x = x.slice::<bf16>()?;
            for_each_row(y.slice_mut::<bf16>()?, columns, |t, y| {
                let mut row: Vec<f32> = x[t * columns..][..columns].iter().map(|x| x.get()).collect();
                drop_row(t, &mut row);
                y.iter_mut().zip(&row).for_each(|(y, &x)| *y = bf16::put(x));
            });
        }
        _ => {
            let x = x.slice::<f32>()?;
            for_each_row(y.slice_mut::<f32>()?, columns, |t, y| {
                y.copy_from_slice(&x[t * columns..][..columns]);
                drop_row(t, y);
            });
        }
    }
    Ok(())
}

/// Computes `x *= mask / (1 - p)` in place, in f32.
pub(crate) fn mask(x: &mut Tensor, dropout: &Dropout) -> Result<()> {
    let columns = x.shape().as_matrix().1;
    let tokens = dropout.tokens.slice::<i32>()?;
    for_each_row(x.slice_mut::<f32>()?, columns, |t, x| mask_row(x, tokens[t], dropout));
    Ok(())
}

/// Zeroes or scales up each channel of the row of one token.
fn mask_row(x: &mut [f32], token: i32, dropout: &Dropout) {
    let (threshold, up) = (dropout.rate.threshold(), dropout.rate.keep_scale());
    let mut channel = dropout.first_channel;
    let (lead, blocks) = x.split_at_mut((channel.next_multiple_of(8) - channel).min(x.len()));
    for x in [lead].into_iter().filter(|x| !x.is_empty()).chain(blocks.chunks_mut(8)) {
        let halves = dropout.key.halves(token as u32, channel as u32 / 8);
        for (x, &half) in x.iter_mut().zip(&halves[channel % 8..]) {
            // Not a product with 0: a dropped NaN or infinity is gone.
            *x = if u32::from(half) < threshold { 0.0f32.copysign(*x) } else { *x * up };
        }
        channel += x.len();
    }
}
