//! Results of the engine compared with reference outputs, tensor by tensor.

#![forbid(unsafe_code)]

mod case_run;
mod reference_case;

pub use case_run::check;
pub use reference_case::{ReferenceCase, TensorComparison};
