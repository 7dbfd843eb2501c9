//! Early stopping: a run ends when the validation loss no longer falls, and its result is that of the lowest one.
//!
//! Both are read from the metrics of the run, so that a resumed run stops where an uninterrupted one does. The weights of
//! the lowest loss lie in `OUT/best`. A run that was killed may find there those of a later step than its checkpoint's;
//! it comes to that step again, with the same bits.

use crate::metrics::StepMetrics;
use std::path::{Path, PathBuf};

/// The progress of the validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationProgress {
    /// The step of the lowest loss, the first of several.
    pub best_step: usize,
    /// Validations since then.
    pub since: usize,
}

impl ValidationProgress {
    /// Reads the progress from the metrics of all steps so far; `None` before the first validation.
    pub fn of(metrics: &[StepMetrics]) -> Option<Self> {
        let losses: Vec<(usize, f64)> =
            metrics.iter().filter_map(|metric| Some((metric.step, metric.validation_loss?))).collect();
        let (at, (best_step, _)) = losses.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
        Some(ValidationProgress { best_step: *best_step, since: losses.len() - 1 - at })
    }

    /// Returns true if a run with this patience is to end.
    pub fn is_over(self, patience: usize) -> bool {
        self.since >= patience
    }
}

/// The folder of the weights with the lowest validation loss.
pub fn best_folder(out: &Path) -> PathBuf {
    out.join("best")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_lowest_losses_is_the_best_and_later_validations_count() {
        let metrics = |losses: &[Option<f64>]| -> Vec<StepMetrics> {
            let metric =
                |(i, &validation_loss)| StepMetrics { step: i + 1, validation_loss, ..Default::default() };
            losses.iter().enumerate().map(metric).collect()
        };
        assert_eq!(ValidationProgress::of(&metrics(&[None, None])), None);
        let falling = ValidationProgress::of(&metrics(&[None, Some(2.0), None, Some(1.0)])).unwrap();
        assert_eq!((falling.best_step, falling.since), (4, 0));
        let rising = [Some(2.0), Some(1.0), None, Some(1.0), Some(3.0)];
        let rising = ValidationProgress::of(&metrics(&rising)).unwrap();
        assert_eq!((rising.best_step, rising.since), (2, 2));
        assert!(rising.is_over(2) && !rising.is_over(3));
    }
}
