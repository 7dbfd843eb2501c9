//! The tensor engine.
pub mod error;
pub use error::{At, Error, Result};
