//! The source of a JavaScript or TypeScript program, made ready to run: types stripped, and guarded.

mod edits;
mod guarded;
mod namespaces;
mod power;
mod spread;
mod strip_types;

pub use guarded::guarded_program;
pub use power::POWER;
pub use spread::SPREAD;
pub use strip_types::{Engine, StrippedProgram, strip_types};
