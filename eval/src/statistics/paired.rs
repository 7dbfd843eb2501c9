//! The difference of two models on the same problems.

use super::proportion::effective_samples;
use super::{ConfidenceInterval, mean_and_variance, students_t, t_quantile};
use serde::{Deserialize, Serialize};
use statrs::distribution::ContinuousCDF;

/// The difference of model `b` from model `a` on the same problems.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean of b - a over problems, with its paired interval.
    pub interval: ConfidenceInterval,
    /// Problems on which b is better.
    pub wins: usize,
    /// Problems on which a is better.
    pub losses: usize,
    /// p-value of the two-sided sign test over the problems that differ.
    pub sign_test: f64,
    /// p-value at which the interval would end at zero; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_test: Option<f64>,
    /// The smallest true difference that the interval would show (5 %, two-sided) with a power of 80 %.
    pub detectable: f64,
}

impl PairedDifference {
    /// Returns the p-value of the difference: the larger of the sign test's and the interval's, which fail in different
    /// ways.
    pub fn p(&self) -> f64 {
        let of_interval = self.t_test.unwrap_or(if self.interval.contains_zero() { 1.0 } else { 0.0 });
        of_interval.max(self.sign_test)
    }
}

/// Compares the per-problem scores of two models on the same problems, in the same order, each the share of `samples`
/// that pass.
///
/// ```
/// use codelsi_eval::statistics::paired_difference;
///
/// let base = [0.0, 0.0, 1.0, 0.0];
/// let tuned = [1.0, 0.0, 1.0, 1.0];
/// let difference = paired_difference(&base, &tuned, 1);
/// assert_eq!((difference.interval.value, difference.wins, difference.losses), (0.5, 2, 0));
/// // Four problems are too few to claim a gain: the p-value is 0.5.
/// assert!((difference.p() - 0.5).abs() < 1e-12);
/// ```
///
/// # Panics
/// When the two have different lengths.
pub fn paired_difference(a: &[f64], b: &[f64], samples: usize) -> PairedDifference {
    let estimate = Estimate::new(a, b, samples);
    let better = |a: &[f64], b: &[f64]| a.iter().zip(b).filter(|(a, b)| b > a).count();
    let (wins, losses) = (better(a, b), better(b, a));
    let [significant, power] = [0.975, 0.8].map(|probability| t_quantile(probability, estimate.freedom));
    let t = estimate.center.abs() / estimate.standard_error;
    PairedDifference {
        interval: estimate.interval(significant),
        wins,
        losses,
        sign_test: sign_test(wins, losses),
        t_test: Some(2.0 * students_t(estimate.freedom).sf(t)),
        detectable: (significant + power) * estimate.standard_error,
    }
}

/// The mean difference, by Bonett and Price ("Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
/// Based on Paired Data", 2012) carried over to several samples per problem: to the effective number of samples, one more
/// that only `a` solves and one that only `b` solves are added. So the interval does not collapse where nothing differs.
pub(super) struct Estimate {
    /// Mean difference of the problems measured.
    mean: f64,
    /// Mean difference with the two added samples, which is the interval's middle.
    center: f64,
    standard_error: f64,
    pub(super) freedom: usize,
}

impl Estimate {
    pub(super) fn new(a: &[f64], b: &[f64], samples: usize) -> Self {
        assert_eq!(a.len(), b.len(), "paired scores must be of the same problems");
        const ADDED: f64 = 2.0;
        let n = a.len();
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        let (mean, variance) = mean_and_variance(&differences);
        let [of_a, of_b] = [a, b].map(|scores| {
            let (mean, variance) = mean_and_variance(scores);
            effective_samples(mean, variance, n, samples)
        });
        let size = 2.0 / (1.0 / of_a + 1.0 / of_b);
        let center = size * mean / (size + ADDED);
        // The sum of squares of as many independent differences as have this mean and this variance of the mean.
        let squares = size * (size * variance + mean * mean) + ADDED;
        let spread = squares / (size + ADDED) - center * center;
        Estimate { mean, center, standard_error: (spread / (size + ADDED)).sqrt(), freedom: n + 1 }
    }

    /// Returns the interval of `t` standard errors.
    pub(super) fn interval(&self, t: f64) -> ConfidenceInterval {
        let half = t * self.standard_error;
        ConfidenceInterval {
            value: self.mean,
            low: (self.center - half).max(-1.0),
            high: (self.center + half).min(1.0),
        }
    }
}

/// Returns the p-value of the two-sided sign test: the probability of a split at least as uneven if both models are
/// equally good.
pub fn sign_test(wins: usize, losses: usize) -> f64 {
    let n = wins + losses;
    // P(X <= min) for X ~ Binomial(n, 1/2), in logarithms so that large n does not underflow.
    let ln_choose = |k: usize| (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum::<f64>();
    let tail: f64 = (0..=wins.min(losses)).map(|k| (ln_choose(k) - n as f64 * 2f64.ln()).exp()).sum();
    (2.0 * tail).min(1.0)
}
