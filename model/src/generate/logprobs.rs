//! Log-probabilities beside the sampled token's: of the most probable tokens, and of a prompt's own.

use super::request::TokenLogprob;
use super::sequence::Sequence;
use codelsi_engine::{Error, Result};
use codelsi_kernels::sample::SampledToken;
use std::cmp::Reverse;

/// Returns a sampled token with the `count` most probable ones of its row of logits.
pub(super) fn token_logprob(choice: SampledToken, logits: Option<&[f32]>, count: usize) -> TokenLogprob {
    let top = logits.map(|logits| most_probable(logits, log_sum_exp(logits), count)).unwrap_or_default();
    TokenLogprob { id: choice.token as u32, logprob: choice.logprob, top }
}

/// Appends the log-probabilities of the prompt's tokens that follow its next rows, whose logits are given.
///
/// # Errors
/// When a row has NaN, +∞ or nothing but −∞.
pub(super) fn prompt_logprobs(sequence: &mut Sequence, logits: &[&[f32]]) -> Result<()> {
    let Sequence { prompt_logprobs, computed, request, .. } = sequence;
    if *computed == 0 {
        prompt_logprobs.push(None);
    }
    for (row, &id) in logits.iter().zip(&request.prompt[*computed + 1..]) {
        let total = log_sum_exp(row);
        if !total.is_finite() {
            return Err(Error::new(format!("the logits of prompt token {id} are not finite")).not_finite());
        }
        let logprob = (f64::from(row[id as usize]) - total) as f32;
        let top = most_probable(row, total, request.top_logprobs);
        prompt_logprobs.push(Some(TokenLogprob { id, logprob, top }));
    }
    Ok(())
}

/// log Σ e^x of a row of logits.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// Returns the `count` most probable tokens with their log-probabilities; the lower id among equals comes first.
fn most_probable(logits: &[f32], total: f64, count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    // Ordered bits: negative numbers descend.
    let order = |&id: &u32| {
        let bits = logits[id as usize].to_bits() as i32;
        (Reverse(bits ^ ((bits >> 31) as u32 >> 1) as i32), id)
    };
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by_key(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by_key(order);
    ids.into_iter().map(|id| (id, (f64::from(logits[id as usize]) - total) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_first_and_sum_to_one() {
        let logits = [0.5, -2.0, 3.0, 3.0, f32::NEG_INFINITY, -0.25];
        let total = log_sum_exp(&logits);
        let top = most_probable(&logits, total, 4);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [2, 3, 0, 5]);
        let all = most_probable(&logits, total, 99);
        assert_eq!(all.iter().map(|t| t.0).collect::<Vec<_>>(), [2, 3, 0, 5, 1, 4]);
        let sum: f64 = all.iter().map(|t| f64::from(t.1).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert!(most_probable(&logits, total, 0).is_empty());
    }
}
