//! The tensor engine: contiguous tensors, a tape, one allocation seam, keyed random numbers, ranks.
//!
//! It knows no op and no model. An op implements [`Op`]; [`Ctx::apply`] runs it and, when a gradient is
//! wanted, leaves a node on the tape; [`Ctx::backward`] walks the tape once, backwards.

pub mod comm;
pub mod ctx;
pub mod cuda;
pub mod device;
pub mod error;
pub mod files;
pub mod memory;
pub mod parcel;
pub mod rng;
pub mod shape;
pub mod tape;
pub mod tensor;

pub use comm::{Comm, Planned, Rank, Reduce, Solo, Threads};
pub use ctx::Ctx;
pub use device::Device;
pub use error::{At, Error, Result};
pub use memory::{Label, Ledger};
pub use parcel::Parcel;
pub use shape::Shape;
pub use tape::{GradSink, Grads, Op, Origin, Outs, Saved, Sink};
pub use tensor::{DType, Elem, Id, Tensor};
