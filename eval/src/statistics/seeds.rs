//! One quantity measured with several seeds: the variance between seeds, told apart from that within each.

use super::{ConfidenceInterval, t_quantile};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// A quantity over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcrossSeeds {
    /// The mean over seeds, with its 95 % interval over the seeds; the one seed's own if there is only one.
    pub mean: ConfidenceInterval,
    /// Standard deviation between seeds beyond what each seed's own uncertainty explains; `None` with one seed.
    pub between: Option<f64>,
    /// Standard error of one seed's estimate, as its interval states it: the root of the mean square.
    pub within: f64,
}

/// Summarises the estimates of independent seeds. The observed variance of the estimates is that between seeds plus the
/// mean variance within one, so the first is the difference, or 0 where noise makes that negative (the moment estimator of
/// random-effects analysis, DerSimonian and Laird, "Meta-Analysis in Clinical Trials", 1986, with equal weights). More seeds
/// over the `same_problems` do not tell more about other problems: then the mean stays as uncertain as one seed.
///
/// ```
/// use codelsi_eval::statistics::{ConfidenceInterval, across_seeds};
///
/// let of = |value: f64| ConfidenceInterval { value, low: value - 0.02, high: value + 0.02 };
/// let seeds = across_seeds(&[of(0.3), of(0.5), of(0.4)], false);
/// assert!((seeds.mean.value - 0.4).abs() < 1e-12);
/// // The seeds differ by far more than the uncertainty of each.
/// assert!(seeds.between.unwrap() > 0.09 && seeds.within < 0.011);
/// ```
///
/// # Panics
/// When there is no seed.
pub fn across_seeds(estimates: &[ConfidenceInterval], same_problems: bool) -> AcrossSeeds {
    let n = estimates.len() as f64;
    let average = |of: &dyn Fn(&ConfidenceInterval) -> f64| estimates.iter().map(of).sum::<f64>() / n;
    // The width of a 95 % interval is about twice 1.96 standard errors.
    let normal = Normal::standard().inverse_cdf(0.975);
    let within = average(&|estimate| (estimate.width() / 2.0 / normal).powi(2));
    let value = average(&|estimate| estimate.value);
    if let [only] = estimates {
        return AcrossSeeds { mean: *only, between: None, within: within.sqrt() };
    }
    let observed = average(&|estimate| (estimate.value - value).powi(2)) * n / (n - 1.0);
    // Equal estimates do not make the seeds certain: the mean is at least as uncertain as the seeds' own error says.
    let of_problems = if same_problems { within } else { within / n };
    let standard_error = (observed / n).max(of_problems).sqrt();
    let half = t_quantile(0.975, estimates.len() - 1) * standard_error;
    AcrossSeeds {
        mean: ConfidenceInterval { value, low: (value - half).max(-1.0), high: (value + half).min(1.0) },
        between: Some((observed - within).max(0.0).sqrt()),
        within: within.sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: f64, half: f64) -> ConfidenceInterval {
        ConfidenceInterval { value, low: value - half, high: value + half }
    }

    #[test]
    fn one_seed_is_its_own_estimate() {
        let seeds = across_seeds(&[of(0.4, 0.098)], false);
        assert_eq!((seeds.mean, seeds.between), (of(0.4, 0.098), None));
        assert!((seeds.within - 0.05).abs() < 1e-4);
    }

    #[test]
    fn what_each_seed_is_uncertain_of_is_no_variance_between_seeds() {
        // Observed variance 0.0025, which is what each seed's own error of 0.05 explains.
        let noisy = across_seeds(&[of(0.35, 0.098), of(0.40, 0.098), of(0.45, 0.098)], false);
        assert!(noisy.between.unwrap() < 2e-3, "{noisy:?}");
        let exact = across_seeds(&[of(0.35, 0.0), of(0.40, 0.0), of(0.45, 0.0)], false);
        assert!((exact.between.unwrap() - 0.05).abs() < 1e-12);
        // t(2) is 4.303: 0.4 ± 4.303 · 0.05 / √3.
        assert!((exact.mean.high - 0.4 - 4.303 * 0.05 / 3f64.sqrt()).abs() < 1e-4);
        let equal = [false, true].map(|same_problems| across_seeds(&[of(0.4, 0.098); 3], same_problems));
        assert!(equal[0].mean.width() > 0.2, "equal estimates are not certain: {equal:?}");
        assert!(
            equal[1].mean.width() > 1.7 * equal[0].mean.width(),
            "nor do they know other problems: {equal:?}"
        );
    }
}
