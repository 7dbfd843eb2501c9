//! `parity`: what the engine computes against reference outputs, tensor by tensor.

mod reference;
mod run;

pub use reference::{Compared, Reference};
pub use run::check;
