//! The learning-rate schedule: linear warm-up, then half a cosine down to zero.

use std::f64::consts::PI;

/// The learning rate of step t = 1, 2, …, P with W warm-up steps:
///
///   lr(t) = lr · t/W                           for t <= W
///   lr(t) = lr · ½(1 + cos(π (t-W)/(P-W)))     otherwise
///
/// so the first step already has a rate above zero and the last one has zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineSchedule {
    /// The peak rate, reached at t = W.
    pub lr: f64,
    /// W, the number of warm-up steps; may be 0.
    pub warmup: usize,
    /// P, the number of optimizer steps of the run.
    pub total_steps: usize,
}

impl CosineSchedule {
    /// The rate of step `t`, counted from 1.
    pub fn lr_at(&self, t: usize) -> f64 {
        if t <= self.warmup {
            return self.lr * t as f64 / self.warmup as f64;
        }
        let decay = self.total_steps.saturating_sub(self.warmup).max(1);
        let done = (t - self.warmup).min(decay) as f64 / decay as f64;
        self.lr * 0.5 * (1.0 + (PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::{abs_diff_eq, assert_abs_diff_eq};

    #[test]
    fn equals_the_reference_run() {
        // From reference.json of the golden cases: lr 1e-3, W 5, P 25.
        let schedule = CosineSchedule { lr: 1e-3, warmup: 5, total_steps: 25 };
        for (t, expected) in [(1, 2e-4), (5, 1e-3), (15, 5e-4), (25, 0.0)] {
            let lr = schedule.lr_at(t);
            assert!(abs_diff_eq!(lr, expected, epsilon = 1e-15), "t = {t}: {lr}");
        }
        assert_abs_diff_eq!(schedule.lr_at(6), 0.000993844170297569, epsilon = 1e-15);
    }

    #[test]
    fn no_warmup_and_no_decay_are_defined() {
        assert_eq!(CosineSchedule { lr: 1.0, warmup: 0, total_steps: 1 }.lr_at(1), 0.0);
        assert_eq!(CosineSchedule { lr: 1.0, warmup: 3, total_steps: 3 }.lr_at(3), 1.0);
        assert_eq!(CosineSchedule { lr: 1.0, warmup: 3, total_steps: 3 }.lr_at(9), 0.0);
    }
}
