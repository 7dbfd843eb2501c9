//! Ratios of paired measurements: two programs timed in turn, so that a machine whose speed drifts slows both.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Chance that a table calls at least one of its ratios a difference although nothing differs.
pub const ALPHA: f64 = 0.05;

/// A ratio of times b / a over pairs of runs: the geometric mean, and an interval that holds for the whole table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedRatio {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
}

/// The claim that a ratio's interval supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Slower,
    Faster,
    /// The interval contains 1.
    NoDifference,
}

impl PairedRatio {
    /// Computes the ratio of `pairs` (a, b), one of `comparisons` in a table: Student's interval of the mean of ln(b / a) at
    /// level 1 - [`ALPHA`] / `comparisons` (Bonferroni). `None` with fewer than three pairs.
    pub fn new(pairs: &[(f64, f64)], comparisons: usize) -> Option<Self> {
        if pairs.len() < 3 {
            return None;
        }
        let n = pairs.len() as f64;
        let logs: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
        let mean = logs.iter().sum::<f64>() / n;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let student = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
        let quantile = student.inverse_cdf(1.0 - ALPHA / (2.0 * comparisons.max(1) as f64));
        let half = quantile * (variance / n).sqrt();
        Some(PairedRatio { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
    }

    /// Returns what the interval supports.
    pub fn verdict(&self) -> Verdict {
        match (self.low > 1.0, self.high < 1.0) {
            (true, _) => Verdict::Slower,
            (_, true) => Verdict::Faster,
            _ => Verdict::NoDifference,
        }
    }
}

impl Verdict {
    /// Describes `b` as seen from `a`.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Slower => "slower",
            Verdict::Faster => "faster",
            Verdict::NoDifference => "no difference",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::rng::RngKey;

    /// Ten pairs of noisy times of a machine whose speed doubles over the run; `b` takes `factor` times as long.
    fn pairs(site: u32, factor: f64) -> Vec<(f64, f64)> {
        let key = RngKey { seed: 3, step: 0, site };
        let noise = |i: u32| (0.02 * key.normal(i, 0) as f64).exp();
        (0..10)
            .map(|i| (1.0 + i as f64 / 9.0, i))
            .map(|(t, i)| (t * noise(2 * i), t * factor * noise(2 * i + 1)))
            .collect()
    }

    #[test]
    fn the_interval_is_students() {
        // Student's quantile with three degrees of freedom is 3.182446 at 95 %.
        let ratio = PairedRatio::new(&[(1.0, 1.1), (2.0, 2.4), (3.0, 3.0), (1.0, 1.15)], 1).unwrap();
        let expected = [1.109_987_1, 0.980_253_2, 1.256_891_0];
        for (value, expected) in [ratio.ratio, ratio.low, ratio.high].into_iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{ratio:?}");
        }
        assert_eq!(PairedRatio::new(&[(1.0, 2.0); 2], 1), None);
        assert_eq!(PairedRatio::new(&[(1.0, 2.0); 3], 1).unwrap().verdict(), Verdict::Slower);
    }

    /// Tables of 60 benches of one program against itself: at most about one in twenty names a difference.
    #[test]
    fn one_program_against_itself_shows_no_difference() {
        let wrong = |table: u32| {
            (0..60).any(|bench| {
                let ratio = PairedRatio::new(&pairs(60 * table + bench, 1.0), 60).unwrap();
                ratio.verdict() != Verdict::NoDifference
            })
        };
        let tables = (0..200).filter(|&table| wrong(table)).count();
        assert!(tables <= 20, "{tables} of 200 tables");
    }

    #[test]
    fn a_tenth_is_seen_through_drift_and_noise() {
        let seen = |factor, expected| {
            (0..100)
                .filter(|&i| PairedRatio::new(&pairs(i, factor), 60).unwrap().verdict() == expected)
                .count()
        };
        assert!(seen(1.1, Verdict::Slower) >= 95);
        assert!(seen(1.0 / 1.1, Verdict::Faster) >= 95);
    }
}
