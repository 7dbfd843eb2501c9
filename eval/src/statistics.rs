//! What a set of problems can say about a model, and about the difference of two.
//!
//! The unit is the problem: samples of one problem are not independent, so intervals resample problems, never samples.

use codelsi_engine::rng::Key;
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap; the interval's ends move by less than 0.1 points between seeds at 159 problems.
const RESAMPLES: usize = 10_000;

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Whether the interval lies above zero.
    pub fn above_zero(&self) -> bool {
        self.low > 0.0
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
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_subsets_with_a_correct_sample() {
        // By counting: of the 10 pairs out of 5 samples, 2 correct, 3 hold none.
        assert!((pass_at_k(5, 2, 2) - 0.7).abs() < 1e-12);
        assert!((pass_at_k(20, 3, 1) - 0.15).abs() < 1e-12);
        assert_eq!((pass_at_k(5, 0, 3), pass_at_k(5, 3, 3), pass_at_k(5, 5, 5)), (0.0, 1.0, 1.0));
        assert!(pass_at_k(5, 1, 6).is_nan());
    }

    #[test]
    fn a_bootstrap_interval_has_the_width_of_the_normal_one() {
        // 159 problems, 62 solved: the standard error of the mean is 3.87 points.
        let scores: Vec<f64> = (0..159).map(|i| f64::from(i < 62)).collect();
        let interval = bootstrap(&scores, 1);
        let half = (interval.high - interval.low) / 2.0;
        assert!((interval.value - 62.0 / 159.0).abs() < 1e-12);
        assert!((half - 1.96 * 0.0387).abs() < 0.004, "{interval:?}");
        assert_eq!(interval, bootstrap(&scores, 1));
        let uneven: Vec<f64> = (0..159).map(|i| f64::from(i).sqrt()).collect();
        assert_ne!(bootstrap(&uneven, 1), bootstrap(&uneven, 2));
        assert_eq!(bootstrap(&[1.0; 9], 3), Interval { value: 1.0, low: 1.0, high: 1.0 });
    }

    #[test]
    fn pairing_sees_what_separate_intervals_do_not() {
        let a: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
        let b: Vec<f64> = a.iter().enumerate().map(|(i, v)| if i < 12 { 1.0 } else { *v }).collect();
        let difference = paired(&a, &b, 7);
        assert_eq!((difference.wins, difference.losses), (6, 0));
        assert!(difference.interval.above_zero() && (difference.interval.value - 0.06).abs() < 1e-12);
        let (low, high) = (bootstrap(&b, 7).low, bootstrap(&a, 7).high);
        assert!(low < high, "unpaired intervals overlap");
    }

    #[test]
    fn the_sign_test_counts_both_tails() {
        assert!((sign_test(6, 0) - 2.0 / 64.0).abs() < 1e-12);
        assert!((sign_test(0, 6) - 2.0 / 64.0).abs() < 1e-12);
        assert_eq!((sign_test(0, 0), sign_test(4, 4)), (1.0, 1.0));
        assert!(sign_test(3000, 2000) < 1e-40);
    }

    #[test]
    fn what_is_detectable_shrinks_with_the_root_of_the_problems() {
        let few: Vec<f64> = (0..50).map(|i| f64::from(i % 3) - 1.0).collect();
        let many: Vec<f64> = few.iter().copied().cycle().take(5000).collect();
        let ratio = smallest_detectable(&few) / smallest_detectable(&many);
        assert!((ratio - 10.0).abs() < 0.2, "{ratio}");
        assert_eq!(smallest_detectable(&[0.5; 10]), 0.0);
    }
}
