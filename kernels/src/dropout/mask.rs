//! Dropout masks: which channels of a token are kept, as a function of keys.

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result, Tensor};

/// A drop probability as masks realise it, a multiple of 2⁻¹⁶: a channel is kept when its 16 random bits are at least the
/// threshold t = round(65536 p), and scaled by 65536 / (65536 − t), so that the mean is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropoutRate {
    threshold: u16,
}

impl DropoutRate {
    /// No dropout.
    pub const ZERO: DropoutRate = DropoutRate { threshold: 0 };

    /// Returns the multiple of 2⁻¹⁶ that is nearest to `p`: 0.0500031 for 0.05.
    ///
    /// # Errors
    /// When p is not from 0 to below 1, is above 0 and rounds to 0, or rounds to 1.
    pub fn new(p: f32) -> Result<Self> {
        let threshold = (65536.0 * p as f64).round();
        let zero_means_zero = p == 0.0 || threshold > 0.0;
        match (0.0..=65535.0).contains(&threshold) && p >= 0.0 && zero_means_zero {
            true => Ok(DropoutRate { threshold: threshold as u16 }),
            false => Err(Error::new(format!(
                "a dropout of {p} cannot be realised: it is 0, or from 0.00001 to 0.99999 (masks count in 1/65536)"
            ))),
        }
    }

    /// Returns the realised probability.
    pub fn probability(self) -> f64 {
        self.threshold as f64 / 65536.0
    }

    /// Returns the scale of the kept channels.
    pub(crate) fn keep_scale(self) -> f32 {
        (65536.0 / (65536.0 - self.threshold as f64)) as f32
    }

    /// Returns t: channels whose 16 random bits are below it are dropped.
    pub(crate) fn threshold(self) -> u32 {
        self.threshold.into()
    }
}

/// Dropout of the rows of an input. The mask of a token is a function of its id in `tokens`, the channel and `key`.
#[derive(Clone)]
pub struct Dropout {
    pub rate: DropoutRate,
    pub key: RngKey,
    /// (T) i32: id of each token, the same wherever it is packed.
    pub tokens: Tensor,
    /// Index of the input's first channel in the unsharded input.
    pub first_channel: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn a_rate_is_the_nearest_multiple_and_its_mean_is_exact() {
        for (p, threshold) in [(0.0, 0), (0.05, 3277), (0.5, 32768), (1e-5, 1), (0.99999, 65535)] {
            let rate = DropoutRate::new(p).unwrap();
            assert_eq!(rate.threshold, threshold, "{p}");
            assert_relative_eq!((1.0 - rate.probability()) * rate.keep_scale() as f64, 1.0, epsilon = 1e-7);
        }
        assert_eq!(format!("{:.7}", DropoutRate::new(0.05).unwrap().probability()), "0.0500031");
    }

    #[test]
    fn rates_that_no_mask_realises_are_refused() {
        for p in [7e-6, f32::MIN_POSITIVE, 0.999_995, 1.0, 2.0, -0.0001, -1.0, f32::NAN, f32::INFINITY] {
            assert!(DropoutRate::new(p).is_err(), "{p}");
        }
    }

    /// Counts kept channels, and of each pair of halves the four outcomes, over a mask of 2²⁰ channels.
    #[test]
    fn a_mask_keeps_its_rate_and_its_halves_are_independent() {
        let key = RngKey { seed: 42, step: 7, site: 11 };
        for p in [0.05, 0.3, 0.5] {
            let rate = DropoutRate::new(p).unwrap();
            let drop = |half: u16| u32::from(half) < rate.threshold();
            let mut dropped = [0u32; 8];
            let mut both = [[0u32; 8]; 8];
            let blocks = 1 << 17;
            for block in 0..blocks {
                let mask = key.halves(block / 640, block % 640).map(drop);
                for i in (0..8).filter(|&i| mask[i]) {
                    dropped[i] += 1;
                    (0..i).filter(|&j| mask[j]).for_each(|j| both[i][j] += 1);
                }
            }
            // Five standard deviations of a binomial count.
            let near = |count: u32, q: f64| {
                let deviation = (blocks as f64 * q * (1.0 - q)).sqrt();
                assert!((count as f64 - blocks as f64 * q).abs() < 5.0 * deviation, "{p}: {count}");
            };
            let q = rate.probability();
            for i in 0..8 {
                near(dropped[i], q);
                (0..i).for_each(|j| near(both[i][j], q * q));
            }
        }
    }
}
