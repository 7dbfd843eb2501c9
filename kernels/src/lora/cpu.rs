//! The CPU twin of what is not a matrix product: scaling, selection of adapters, and dropout.

use super::Dropout;
use crate::simd::{Storage, vectorize};
use codelsi_engine::{DType, Error, Result, Tensor};
use half::bf16;
use rayon::prelude::*;

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
pub(super) fn mask(x: &mut Tensor, dropout: &Dropout) -> Result<()> {
    let columns = x.shape().as_matrix().1;
    let tokens = dropout.tokens.slice::<i32>()?;
    for_each_row(x.slice_mut::<f32>()?, columns, |t, x| mask_row(x, tokens[t], dropout));
    Ok(())
}

/// Zeroes or scales up each channel of the row of one token.
fn mask_row(x: &mut [f32], token: i32, dropout: &Dropout) {
    let (p, up) = (dropout.p, dropout.keep_scale());
    let mut channel = dropout.first_channel;
    let (lead, blocks) = x.split_at_mut((channel.next_multiple_of(4) - channel).min(x.len()));
    for x in [lead].into_iter().filter(|x| !x.is_empty()).chain(blocks.chunks_mut(4)) {
        let words = dropout.key.words(token as u32, channel as u32 / 4);
        for (x, &word) in x.iter_mut().zip(&words[channel % 4..]) {
            *x *= if codelsi_engine::rng::unit(word) < p { 0.0 } else { up };
        }
        channel += x.len();
    }
}

fn for_each_row<T: Storage>(x: &mut [T], columns: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    x.par_chunks_mut(columns.max(1)).enumerate().for_each(|(t, x)| f(t, x));
}
