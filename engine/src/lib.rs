//! The tensor engine: contiguous tensors, a tape, memory accounting, keyed random numbers, CUDA, and ranks.
//!
//! It contains no op and no model. An op implements [`Op`]; [`Ctx::apply`] runs it and, when a gradient is wanted,
//! pushes a node onto the tape; [`Ctx::backward`] visits the nodes once, last to first.
//!
//! ```
//! use codelsi_engine::{Ctx, Device, Grads, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
//!
//! /// y = 3x, so dx = 3dy.
//! struct Triple;
//!
//! fn triple(cx: &Ctx, x: &Tensor) -> Result<Tensor> {
//!     let y: Vec<f32> = x.slice::<f32>()?.iter().map(|x| 3.0 * x).collect();
//!     cx.device().tensor(Label::Activations, *x.shape(), &y)
//! }
//!
//! impl Op for Triple {
//!     fn name(&self) -> &'static str {
//!         "triple"
//!     }
//!     fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
//!         Ok(vec![triple(cx, x[0])?])
//!     }
//!     fn backward(&self, cx: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
//!         dy[0].as_ref().map_or(Ok(()), |dy| dx.add(0, triple(cx, dy)?))
//!     }
//! }
//!
//! let device = Device::cpu();
//! let x = device.tensor(Label::Weights, [2], &[1.0f32, 5.0])?.with_grad();
//! let cx = Ctx::training(&device, 42, 0); // the seed and step of random numbers
//! let y = cx.apply_one(Triple, &[&x])?;
//! let dy = device.tensor(Label::Gradients, [2], &[1.0f32, 10.0])?;
//! let mut grads = Grads::default();
//! cx.backward([(&y, dy)], &mut grads)?;
//! assert_eq!(grads.get(&x).unwrap().slice::<f32>()?, [3.0, 30.0]);
//! # Ok::<(), codelsi_engine::Error>(())
//! ```

pub mod comm;
pub mod ctx;
pub mod cuda;
pub mod device;
pub mod error;
pub mod files;
mod host_block;
pub mod interrupt;
pub mod memory;
pub mod op_times;
pub mod printable;
pub mod rng;
pub mod run_lock;
pub mod scratch;
pub mod shape;
pub mod staged_inputs;
pub mod tape;
pub mod team;
pub mod tensor;

pub use comm::{Comm, PlannedComm, Rank, ReduceOp, Solo, Threads};
pub use ctx::Ctx;
pub use device::Device;
pub use error::{At, Error, Result};
pub use memory::{Label, Ledger};
pub use printable::printable;
pub use run_lock::RunLock;
pub use scratch::ScratchFolder;
pub use shape::Shape;
pub use staged_inputs::StagedInputs;
pub use tape::{GradSink, Grads, InputGrads, Op, Outs, Saved};
pub use tensor::{DType, Elem, Refetch, Tensor, TensorId};
