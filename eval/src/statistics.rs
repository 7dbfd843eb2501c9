//! Statistics over problems: pass@k, confidence intervals, and the paired difference of two models.
//!
//! The unit is the problem: samples of one problem are not independent, so each interval estimates from the problems how
//! many independent samples theirs are worth.

mod paired;
mod proportion;
mod seeds;
mod significance;

pub use paired::{PairedDifference, paired_difference, sign_test};
pub use proportion::proportion_interval;
pub use seeds::{AcrossSeeds, across_seeds};
pub use significance::{ALPHA, Verdict, holm, verdicts};

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// An estimate with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceInterval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl ConfidenceInterval {
    /// Returns the distance from the low end to the high one.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }

    fn contains_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

/// Estimates pass@k without bias from n samples, c of which are correct: 1 - C(n-c, k) / C(n, k), the probability
/// that k of these samples include a correct one (Chen et al., "Evaluating Large Language Models Trained on
/// Code", arXiv 2107.03374, equation 1). NaN for k > n.
///
/// ```
/// use codelsi_eval::statistics::pass_at_k;
///
/// // 2 of 5 samples pass; 7 of the 10 pairs of samples include one of them.
/// assert!((pass_at_k(5, 2, 1) - 0.4).abs() < 1e-12);
/// assert!((pass_at_k(5, 2, 2) - 0.7).abs() < 1e-12);
/// ```
pub fn pass_at_k(n: usize, c: usize, k: usize) -> f64 {
    if k > n {
        return f64::NAN;
    }
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Returns the quantile at `probability` of Student's t distribution.
fn t_quantile(probability: f64, freedom: usize) -> f64 {
    students_t(freedom).inverse_cdf(probability)
}

fn students_t(freedom: usize) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom.max(1) as f64).expect("the degrees of freedom are positive")
}

/// Returns the mean of values, and the variance of that mean as estimated from them; exactly 0 if all are equal.
fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    if values.iter().all(|value| *value == values[0]) {
        return (values.first().copied().unwrap_or(0.0), 0.0);
    }
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, squares / (n - 1.0) / n)
}

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;
