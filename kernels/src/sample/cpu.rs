//! The CPU twin: rows in parallel.

use super::Params;
use super::words::{CHOICE, Outcome, PARAMS, params};
use crate::simd::{Storage, exp, max, sum, vectorize};
use codelsi_engine::{Result, Tensor};
use rayon::prelude::*;
use std::cmp::Ordering;

/// A choice for every row; scores and ids (B, V) are working memory.
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
    let choices = choices.slice_mut::<i32>()?.par_chunks_exact_mut(CHOICE);
    let words = words.slice::<i32>()?.par_chunks_exact(PARAMS);
    let rows = scores.zip(ids).zip(rows).zip(words).zip(choices);
    rows.for_each(|((((scores, ids), logits), words), choice)| {
        choose(scores, ids, logits, &params(words, previous)).write(choice);
    });
    Ok(())
}

fn choose<E: Storage>(scores: &mut [f32], ids: &mut [i32], logits: &[E], params: &Params) -> Outcome {
    vectorize(
        #[inline(always)]
        || scores.iter_mut().zip(logits).for_each(|(s, x)| *s = x.get()),
    );
    let largest_logit = max(scores);
    let outcome = Outcome { token: 0, bad: None, logit: 0.0, max: largest_logit, total: 0.0 };
    if let Some(bad) = scores.iter().position(|x| x.is_nan() || *x == f32::INFINITY) {
        return Outcome { bad: Some(bad), logit: scores[bad], ..outcome };
    }
    if largest_logit == f32::NEG_INFINITY {
        return Outcome { bad: Some(logits.len()), ..outcome };
    }
    let total = total_weight(scores, largest_logit);
    for &id in params.previous {
        // From the logits as given, so that a token met twice is penalized once.
        let x = logits[id as usize].get();
        let penalty = params.repetition_penalty;
        scores[id as usize] = if x > 0.0 { x / penalty } else { x * penalty };
    }
    let token = match params.temperature {
        0.0 => largest(scores),
        temperature => {
            let max = max(scores);
            vectorize(
                #[inline(always)]
                || scores.iter_mut().for_each(|s| *s = (*s - max) / temperature),
            );
            draw(candidates(scores, ids, params), scores, uniform(params))
        }
    };
    Outcome { token, logit: logits[token].get(), total, ..outcome }
}

/// Σ e^(x − max): blocks in f32, their sums in f64.
fn total_weight(x: &[f32], max: f32) -> f64 {
    let block = |x: &[f32]| {
        vectorize(
            #[inline(always)]
            || sum(x.len(), |i| exp(x[i] - max)),
        )
    };
    x.chunks(256).map(|x| block(x) as f64).sum()
}

/// The index of the largest score, the lowest among equals.
fn largest(scores: &[f32]) -> usize {
    let max = max(scores);
    scores.iter().position(|&s| s == max).unwrap_or(0)
}

/// A number in [0, 1) with 53 random bits.
fn uniform(params: &Params) -> f64 {
    let [high, low, ..] = params.key.words(0, 0);
    let word = (high as u64) << 32 | low as u64;
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// The relative probability of a token whose score is `score` below the largest, which is 0.
fn weight(score: f32) -> f64 {
    exp(score) as f64
}

/// The ids that the filters leave, in a part of `ids`: sorted by score if top-k or top-p cut, else by id.
fn candidates<'a>(scores: &[f32], ids: &'a mut [i32], params: &Params) -> &'a [i32] {
    let score = |id: i32| scores[id as usize];
    let weight = |id: &i32| weight(score(*id));
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
        let total: f64 = ids[..kept].iter().map(weight).sum();
        // All ids below this share have less than 1 − p together: those that reach p are all above it.
        // Half of it, so that no rounding of the sum matters.
        let floor = 0.5 * (1.0 - params.top_p as f64) * total / kept as f64;
        kept = retain(&mut ids[..kept], |id| weight(&id) >= floor);
        ids[..kept].sort_unstable_by(order);
        let mut mass = 0.0;
        let reached = |id: &i32| {
            mass += weight(id);
            mass >= params.top_p as f64 * total
        };
        kept = ids[..kept].iter().position(reached).map_or(kept, |last| last + 1);
    }
    if params.min_p > 0.0 {
        kept = retain(&mut ids[..kept], |id| weight(&id) >= params.min_p as f64);
    }
    &ids[..kept]
}

/// Moves the ids that `keep` accepts to the front, in their order; returns how many there are.
fn retain(ids: &mut [i32], keep: impl Fn(i32) -> bool) -> usize {
    let mut kept = 0;
    for i in 0..ids.len() {
        ids[kept] = ids[i];
        kept += keep(ids[i]) as usize;
    }
    kept
}

/// The first candidate at which the cumulative weight passes `u` times the whole.
fn draw(candidates: &[i32], scores: &[f32], u: f64) -> usize {
    let weight = |id: &i32| weight(scores[*id as usize]);
    let target = u * candidates.iter().map(weight).sum::<f64>();
    let mut mass = 0.0;
    let passed = candidates.iter().find(|&id| {
        mass += weight(id);
        mass > target
    });
    *passed.unwrap_or(&candidates[candidates.len() - 1]) as usize
}
