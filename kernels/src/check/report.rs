//! The errors of an op's cases, each beside what is allowed.

use crate::spec::{Case, Spec};
use codelsi_engine::{DType, Error, Result};

/// The worst error of an op's cases, relative to the allowed error.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    pub cases: usize,
    pub worst_ratio: f64,
    /// Tensor and case of the worst ratio.
    pub worst: String,
    /// The worst error of each case.
    pub results: Vec<CaseResult>,
}

/// The worst error of one case, and its limit in the same unit.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// Sizes of the case.
    pub shape: String,
    pub dtype: DType,
    /// Output or gradient that is worst.
    pub tensor: String,
    pub error: Measured,
}

/// An error and what is allowed: relative to the truth's RMS, or both in the tensor's unit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub error: f64,
    pub limit: f64,
}

impl Measured {
    /// The error as a share of the limit; NaN where neither is a number.
    pub fn ratio(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.limit }
    }

    /// The worse of two, as shares of their limits; not the one that has none.
    pub(super) fn worse(self, other: Measured) -> Measured {
        if other.ratio() > self.ratio() || self.ratio().is_nan() { other } else { self }
    }
}

impl CheckReport {
    /// Begins a case: the errors recorded next are its.
    pub(super) fn begin(&mut self, case: &Case, dtype: DType) {
        self.cases += 1;
        let shape = case.name.clone();
        self.results.push(CaseResult { shape, dtype, tensor: String::new(), error: Measured::default() });
    }

    /// Records an error of `tensor` in the case that was begun last.
    pub(super) fn record(&mut self, error: Measured, tensor: &str) {
        // NaN counts as the worst.
        let share = |error: Measured| if error.ratio().is_nan() { f64::INFINITY } else { error.ratio() };
        let ratio = share(error);
        let Some(case) = self.results.last_mut() else { return };
        if case.tensor.is_empty() || ratio > share(case.error) {
            (case.tensor, case.error) = (tensor.to_owned(), error);
        }
        if ratio > self.worst_ratio {
            self.worst_ratio = ratio;
            self.worst = format!("{tensor} of {:?} {}", case.dtype, case.shape);
        }
    }

    /// Returns the report unless its worst error is too large.
    ///
    /// # Errors
    /// When the worst error exceeds what is allowed.
    pub fn verdict(self, spec: &Spec) -> Result<CheckReport> {
        if self.worst_ratio <= 1.0 {
            return Ok(self);
        }
        let message = format!("{} is off by {:.2} times what is allowed", self.worst, self.worst_ratio);
        Err(Error::op(spec.name, message))
    }
}
