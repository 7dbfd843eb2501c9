//! Flags that several commands share.

mod method;
mod model;
mod ranks;

pub use method::MethodArgs;
pub use model::{ComputeArg, ModelArgs, PlaceArgs};
pub use ranks::RankArgs;
