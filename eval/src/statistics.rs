//! What a set of problems can say about a model, and about the difference of two.
//!
//! The unit is the problem: samples of one problem are not independent, so intervals resample problems, never samples.

use codelsi_engine::rng::Key;
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap; the interval's ends move by less than 0.1 points between seeds at 159 problems.
const RESAMPLES: usize = 10_000;

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    fn holds_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

/// How far model `b` is from model `a` on the same problems.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of b - a over problems, with its paired bootstrap interval.
    pub interval: Interval,
    /// Problems on which b is better, and on which a is.
    pub wins: usize,
    pub losses: usize,
    /// Two-sided sign test over the problems that differ.
    pub sign_test: f64,
    /// [`smallest_detectable`] for these two.
    pub detectable: f64,
}

impl Difference {
    /// Why no gain or loss may be claimed from this difference; nothing when the interval and the sign test, which
    /// fail in different ways, both set it apart from zero at 5 %.
    pub fn noise(&self) -> Option<String> {
        if self.wins + self.losses == 0 {
            return Some("inside the noise: no problem came out differently".into());
        }
        let reason = if self.interval.holds_zero() {
            "the 95 % interval holds zero".into()
        } else if self.sign_test > 0.05 {
            format!("the sign test gives p = {:.3}", self.sign_test)
        } else {
            return None;
        };
        Some(format!(
            "inside the noise: {reason}; {} problems better, {} worse; below {:.1} points not detectable here",
            self.wins,
            self.losses,
            100.0 * self.detectable
        ))
    }
}

/// The chance that k of n samples, c of which are correct, hold a correct one: 1 - C(n-c, k) / C(n, k), the unbiased
/// estimate of pass@k (Chen et al. 2021). NaN for k > n.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> f64 {
    if k > n {
        return f64::NAN;
    }
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Mean of per-problem scores with a percentile bootstrap interval over problems.
pub fn bootstrap(scores: &[f64], seed: u64) -> Interval {
    let value = mean(scores);
    if scores.is_empty() {
        return Interval { value, low: value, high: value };
    }
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|round| resampled_mean(scores, seed, round as u32)).collect();
    means.sort_by(f64::total_cmp);
    let at = |q: f64| means[(q * (RESAMPLES - 1) as f64).round() as usize];
    Interval { value, low: at(0.025), high: at(0.975) }
}

/// Compares per-problem scores of two models on the same problems, in the same order.
pub fn paired(a: &[f64], b: &[f64], seed: u64) -> Difference {
    assert_eq!(a.len(), b.len(), "paired scores are of the same problems");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let wins = differences.iter().filter(|d| **d > 0.0).count();
    let losses = differences.iter().filter(|d| **d < 0.0).count();
    Difference {
        interval: bootstrap(&differences, seed),
        wins,
        losses,
        sign_test: sign_test(wins, losses),
        detectable: smallest_detectable(&differences),
    }
}

/// Two-sided sign test: how likely wins as lopsided are when both models are equally good.
pub fn sign_test(wins: usize, losses: usize) -> f64 {
    let n = wins + losses;
    // P(X <= min) for X ~ Binomial(n, 1/2), in logarithms so that large n does not underflow.
    let ln_choose = |k: usize| (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum::<f64>();
    let tail: f64 = (0..=wins.min(losses)).map(|k| (ln_choose(k) - n as f64 * 2f64.ln()).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// The smallest true difference that these problems would show as significant (5 %, two-sided) four times in five:
/// (1.960 + 0.842) standard errors of the paired differences.
pub fn smallest_detectable(differences: &[f64]) -> f64 {
    let n = differences.len() as f64;
    let mean = mean(differences);
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    2.802 * (variance / n.max(1.0)).sqrt()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn resampled_mean(scores: &[f64], seed: u64, round: u32) -> f64 {
    let key = Key { seed, step: round, site: 0 };
    let n = scores.len();
    let draw = |i: usize| {
        let word = key.words((i / 4) as u32, 0)[i % 4];
        scores[((u64::from(word) * n as u64) >> 32) as usize]
    };
    (0..n).map(draw).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests;
