//! A GPU in software: it parses the PTX that NVRTC emits and executes it, warps in lock step, with checks.
//!
//! Start at [`Gpu`]: allocate, write, [`Gpu::load`] a module, [`Gpu::launch`] a kernel, read. What goes wrong
//! inside a kernel is one [`Fault`] that names the kernel, the PTX line, the CUDA line, the block and the thread.

#![warn(missing_docs)]

mod counters;
mod decode;
mod error;
mod exec;
mod fault;
mod flow;
mod gpu;
mod inst;
mod lane;
mod layout;
mod load;
mod memory;
mod module;
mod ptx;

pub use counters::Counters;
pub use error::{Error, Result};
pub use fault::{Fault, FaultKind};
pub use gpu::{Gpu, Launch, Schedule};
pub use module::{Kernel, Module, Param, ParamKind};
