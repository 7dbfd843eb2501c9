//! Recognition of a run that stopped learning.

use crate::metrics::StepMetrics;

/// Watches the steps of a run for a collapse, which it reports once.
#[derive(Debug, Default)]
pub struct CollapseWatch {
    /// Loss of the run's first step.
    first_loss: Option<f64>,
    reported: bool,
}

/// Rise of the loss over that of the first step, in nats, that is a collapse: a perplexity twenty times as high.
const RISE: f64 = 3.0;

impl CollapseWatch {
    /// Watches a run whose steps so far are `metrics`.
    pub fn new(metrics: &[StepMetrics]) -> CollapseWatch {
        CollapseWatch { first_loss: metrics.first().map(|metric| metric.loss), reported: false }
    }

    /// Returns a warning with advice if the step shows a collapse and none was reported before.
    pub fn warning(&mut self, metric: &StepMetrics) -> Option<String> {
        let first = *self.first_loss.get_or_insert(metric.loss);
        let StepMetrics { step, loss, grad_norm, .. } = *metric;
        let what = if grad_norm == 0.0 && loss > 0.0 && loss >= first {
            format!("the gradient is 0 at a loss of {loss:.4}, so nothing is learned any more")
        } else if loss > first + RISE {
            format!("the loss is {loss:.4}, far above the {first:.4} of the first step")
        } else {
            return None;
        };
        let report = !std::mem::replace(&mut self.reported, true);
        report.then(|| {
            format!(
                "step {step}: the run has collapsed: {what}; train again with a lower --lr, more --warmup or a lower --clip"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(step: usize, loss: f64, grad_norm: f64) -> StepMetrics {
        StepMetrics { step, loss, grad_norm, ..StepMetrics::default() }
    }

    #[test]
    fn a_collapse_is_said_once_and_an_ordinary_run_is_not_one() {
        let mut watch = CollapseWatch::default();
        for (step, loss) in [(1, 2.0), (2, 3.1), (3, 0.5), (4, 4.9)] {
            assert_eq!(watch.warning(&metric(step, loss, 0.1)), None);
        }
        let warning = watch.warning(&metric(5, 5.1, 0.1)).unwrap();
        assert!(
            warning.contains("step 5") && warning.contains("5.1000") && warning.contains("--lr"),
            "{warning}"
        );
        assert_eq!(watch.warning(&metric(6, 9.0, 0.0)), None, "once");
        let mut watch = CollapseWatch::new(&[metric(1, 2.0, 0.1)]);
        assert_eq!(watch.warning(&metric(2, 0.0, 0.0)), None, "a row learned by heart has no gradient");
        assert!(watch.warning(&metric(3, 2.5, 0.0)).unwrap().contains("gradient is 0"));
    }
}
