//! Flags that several commands share.

pub mod help;
mod judge;
mod method;
mod model;
pub mod number;
mod ranks;
mod sampling;
mod step;

pub use judge::JudgeToolArgs;
pub use method::MethodArgs;
pub use model::{DeviceArgs, ModelArgs, folder};
pub use ranks::RankArgs;
pub use sampling::{ProtocolArgs, SamplingArgs};
pub use step::StepArgs;
