//! Results of the engine compared with reference outputs, tensor by tensor.

#![forbid(unsafe_code)]

mod reference;
mod run;

pub use reference::{Compared, Reference};
pub use run::check;
