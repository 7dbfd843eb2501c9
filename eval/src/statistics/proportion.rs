//! The confidence interval of a share of samples, in problems whose samples resemble each other.

use super::{ConfidenceInterval, mean_and_variance, t_quantile};
use statrs::distribution::{Beta, ContinuousCDF};

/// Computes the mean of per-problem scores in [0, 1] with its 95 % interval: Clopper's and Pearson's on the effective
/// number of samples (Korn and Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive
/// Counts Estimated from Survey Data", 1998). `samples` is the number of samples per problem.
///
/// ```
/// use codelsi_eval::statistics::proportion_interval;
///
/// // None of 40 problems is solved, yet up to 8.8 % may be within reach.
/// let none = proportion_interval(&[0.0; 40], 1);
/// assert_eq!((none.value, none.low), (0.0, 0.0));
/// assert!((none.high - 0.0881).abs() < 1e-4);
/// ```
pub fn proportion_interval(scores: &[f64], samples: usize) -> ConfidenceInterval {
    let (value, variance) = mean_and_variance(scores);
    let n = scores.len();
    if n == 0 {
        return ConfidenceInterval { value, low: 0.0, high: 1.0 };
    }
    let successes = scores.iter().filter(|score| **score > 0.0).count();
    let failures = scores.iter().filter(|score| **score < 1.0).count();
    // The variance is known as well as the rarer kind of problem makes it known.
    let freedom = successes.min(failures).clamp(1, (n - 1).max(1));
    let all = (n * samples).saturating_sub(1);
    let precision = (t_quantile(0.975, all) / t_quantile(0.975, freedom)).powi(2);
    let size = effective_samples(value, variance / precision, n, samples);
    let hits = size * value;
    let quantile = |probability: f64, a: f64, b: f64| {
        Beta::new(a, b).map_or(value, |beta| beta.inverse_cdf(probability))
    };
    let low = if value <= 0.0 { 0.0 } else { quantile(0.025, hits, size - hits + 1.0) };
    let high = if value >= 1.0 { 1.0 } else { quantile(0.975, hits + 1.0, size - hits) };
    ConfidenceInterval { value, low, high }
}

/// Returns the number of independent samples whose mean would have this variance: at least one per problem, at most all.
pub(super) fn effective_samples(mean: f64, variance: f64, problems: usize, samples: usize) -> f64 {
    let fewest = problems as f64;
    let size = mean * (1.0 - mean) / variance;
    // Equal scores say nothing about the samples' independence.
    if variance <= 0.0 { fewest } else { size.clamp(fewest, fewest * samples.max(1) as f64) }
}
