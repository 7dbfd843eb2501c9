//! The CPU twin: rows in parallel.

use super::packing::{CHOICE_WORDS, PARAM_WORDS, RowResult, unpack};
use super::{MASS, RowSamplingParams};
use crate::simd::{Storage, exp, max, sum, vectorize};
use codelsi_engine::team::ForEachOnTeam;
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;
use std::cmp::Ordering;

/// Samples every row; scores and ids (B, V) are working memory.
pub fn sample<E: Storage>(
    choices: &mut Tensor,
    [mut scores, mut ids]: [Tensor; 2],
    logits: &Tensor,
    words: &Tensor,
    previous: &Tensor,
) -> Result<()> {
    let (vocab, previous) = (logits.shape().as_matrix().1, previous.slice::<i32>()?);
    let scores = scores.slice_mut::<f32>()?.par_chunks_exact_mut(vocab);
    let ids = ids.slice_mut::<i32>()?.par_chunks_exact_mut(vocab);
    let rows = logits.slice::<E>()?.par_chunks_exact(vocab);
    let choices = choices.slice_mut::<i32>()?.par_chunks_exact_mut(CHOICE_WORDS);
    let words = words.slice::<i32>()?.par_chunks_exact(PARAM_WORDS);
    let rows = scores.zip(ids).zip(rows).zip(words).zip(choices);
    rows.for_each_on_team(|((((scores, ids), logits), words), choice)| {
        choose_token(scores, ids, logits, &unpack(words, previous)).write(choice);
    });
    Ok(())
}

fn choose_token<E: Storage>(
    scores: &mut [f32],
    ids: &mut [i32],
    logits: &[E],
    params: &RowSamplingParams,
) -> RowResult {
    vectorize(
        #[inline(always)]
        || scores.iter_mut().zip(logits).for_each(|(s, x)| *s = x.get()),
    );
    let max_logit = max(scores);
    let outcome = RowResult { token: 0, bad: None, logit: 0.0, max: max_logit, total: 0.0 };
    if let Some(bad) = scores.iter().position(|x| x.is_nan() || *x == f32::INFINITY) {
        return RowResult { bad: Some(bad), logit: scores[bad], ..outcome };
    }
    if max_logit == f32::NEG_INFINITY {
        return RowResult { bad: Some(logits.len()), ..outcome };
    }
    let total = softmax_denominator(scores, max_logit);
    penalize(scores, ids, logits, params);
    let best = max(scores);
    let token = match params.temperature {
        0.0 => argmax(scores),
        // Differences from it would be no numbers.
        _ if best.is_infinite() => argmax(scores),
        temperature => {
            vectorize(
                #[inline(always)]
                || scores.iter_mut().for_each(|s| *s = (*s - best) / temperature),
            );
            draw(candidates(scores, ids, params), scores, random_word(params))
        }
    };
    RowResult { token, logit: logits[token].get(), total, ..outcome }
}

/// Applies the penalties of previous tokens to scores; `counts` (V) is working memory.
fn penalize<E: Storage>(scores: &mut [f32], counts: &mut [i32], logits: &[E], params: &RowSamplingParams) {
    params.previous.iter().for_each(|&id| counts[id as usize] = 0);
    params.previous[params.prompt_len..].iter().for_each(|&id| counts[id as usize] += 1);
    for &id in params.previous {
        // From the raw logits, so that a repeated token is penalized once.
        let x = logits[id as usize].get();
        let penalty = params.repetition_penalty;
        let score = if x > 0.0 { x / penalty } else { x * penalty };
        scores[id as usize] = match counts[id as usize] {
            0 => score,
            // Finite, so that no difference of infinities arises.
            n => {
                let amount = params.frequency_penalty * n as f32 + params.presence_penalty;
                score - amount.clamp(f32::MIN, f32::MAX)
            }
        };
    }
}

/// Returns Σ e^(x − max): runs of 256 in f32, their sums in f64.
fn softmax_denominator(x: &[f32], max: f32) -> f64 {
    let block = |x: &[f32]| {
        vectorize(
            #[inline(always)]
            || sum(x, |x| exp(x - max)),
        )
    };
    x.chunks(256).map(|x| block(x) as f64).sum()
}

/// Returns the index of the largest score, the lowest among equals.
fn argmax(scores: &[f32]) -> usize {
    let best = max(scores);
    scores.iter().position(|&s| s == best).unwrap_or(0)
}

/// Returns a uniform number in units of 2⁻⁶⁴.
fn random_word(params: &RowSamplingParams) -> u64 {
    let [high, low, ..] = params.key.words(0, 0);
    (high as u64) << 32 | low as u64
}

/// Returns the probability of a token relative to the likeliest one's; scores are relative to the largest, which is 0.
fn weight(score: f32) -> f32 {
    exp(score)
}

/// Returns a weight in units of 1 / [`MASS`], rounded down.
fn mass(weight: f32) -> u64 {
    (weight * MASS as f32) as u64
}

/// Returns the ids that pass the filters, in the front of `ids`: sorted by score if top-k or top-p is active, else by
/// id.
fn candidates<'a>(scores: &[f32], ids: &'a mut [i32], params: &RowSamplingParams) -> &'a [i32] {
    let score = |id: i32| scores[id as usize];
    let mass_of = |id: &i32| mass(weight(score(*id)));
    // Best first, the lower id among equals.
    let order =
        |a: &i32, b: &i32| score(*b).partial_cmp(&score(*a)).unwrap_or(Ordering::Equal).then(a.cmp(b));
    ids.iter_mut().zip(0..).for_each(|(id, i)| *id = i);

    let mut kept = ids.len();
    if params.top_k > 0 && params.top_k < kept {
        kept = params.top_k;
        ids.select_nth_unstable_by(kept - 1, order);
        ids[..kept].sort_unstable_by(order);
    }
    if params.top_p < 1.0 {
        let total: u64 = ids[..kept].iter().map(mass_of).sum();
        let least = (params.top_p as f64 * total as f64).ceil() as u64;
        // Ids with less than this mass sum to less than half of 1 − p, so the nucleus lies above it and the others need
        // not be sorted.
        let floor = 0.5 * (1.0 - params.top_p as f64) * total as f64 / kept as f64;
        kept = retain(&mut ids[..kept], |id| mass_of(&id) as f64 >= floor);
        ids[..kept].sort_unstable_by(order);
        let mut sum = 0;
        let reached = |id: &i32| {
            sum += mass_of(id);
            sum >= least
        };
        kept = ids[..kept].iter().position(reached).map_or(kept, |last| last + 1);
    }
    if params.min_p > 0.0 {
        kept = retain(&mut ids[..kept], |id| weight(score(id)) >= params.min_p);
    }
    &ids[..kept]
}

/// Moves the ids that `keep` accepts to the front, in their order; returns their number.
fn retain(ids: &mut [i32], keep: impl Fn(i32) -> bool) -> usize {
    let mut kept = 0;
    for i in 0..ids.len() {
        ids[kept] = ids[i];
        kept += keep(ids[i]) as usize;
    }
    kept
}

/// Returns the first candidate at which the running sum of masses exceeds `u` · 2⁻⁶⁴ times the total.
fn draw(candidates: &[i32], scores: &[f32], u: u64) -> usize {
    let mass_of = |id: &i32| mass(weight(scores[*id as usize]));
    let total: u64 = candidates.iter().map(mass_of).sum();
    let target = ((u as u128 * total as u128) >> 64) as u64;
    let mut sum = 0;
    let passed = candidates.iter().find(|&id| {
        sum += mass_of(id);
        sum > target
    });
    *passed.expect("the target is below the sum of all, and the likeliest token has a mass") as usize
}
