//! The learning-rate schedule: linear warm-up, then half a cosine down to zero.

use std::f64::consts::PI;

/// The learning rate of step t = 1, 2, …, P with W warm-up steps:
///
///   lr(t) = lr · t/W                           for t <= W
///   lr(t) = lr · ½(1 + cos(π (t-W)/(P-W)))     otherwise
///
/// so the first step already has a rate above zero and the last one has zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// The peak rate, reached at t = W.
    pub lr: f64,
    /// W, the number of warm-up steps; may be 0.
    pub warmup: usize,
    /// P, the number of optimizer steps of the run.
    pub planned: usize,
}

impl Cosine {
    /// The rate of step `t`, counted from 1.
    pub fn at(&self, t: usize) -> f64 {
        if t <= self.warmup {
            return self.lr * t as f64 / self.warmup as f64;
        }
        let decay = self.planned.saturating_sub(self.warmup).max(1);
        let done = (t - self.warmup).min(decay) as f64 / decay as f64;
        self.lr * 0.5 * (1.0 + (PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_reference_run() {
        // From reference.json of the golden cases: lr 1e-3, W 5, P 25.
        let schedule = Cosine { lr: 1e-3, warmup: 5, planned: 25 };
        for (t, expected) in [(1, 2e-4), (5, 1e-3), (15, 5e-4), (25, 0.0)] {
            assert!((schedule.at(t) - expected).abs() < 1e-15, "t = {t}: {}", schedule.at(t));
        }
        assert!((schedule.at(6) - 0.000993844170297569).abs() < 1e-15);
    }

    #[test]
    fn no_warmup_and_no_decay_are_defined() {
        assert_eq!(Cosine { lr: 1.0, warmup: 0, planned: 1 }.at(1), 0.0);
        assert_eq!(Cosine { lr: 1.0, warmup: 3, planned: 3 }.at(3), 1.0);
        assert_eq!(Cosine { lr: 1.0, warmup: 3, planned: 3 }.at(9), 0.0);
    }
}
