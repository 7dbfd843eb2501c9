//! A GPU in software: it parses the PTX that NVRTC emits and executes it, warps in lock step, with checks.
//!
//! Start at [`Gpu`]: allocate, write, [`Gpu::load`] a module, [`Gpu::launch`] a kernel, read. What goes wrong
//! inside a kernel is one [`Fault`] that names the kernel, the PTX line, the CUDA line, the block and the
//! thread. Run every check in both schedules ([`Gpu::set_schedule`]): they do differently what a program
//! leaves open, so that a missing barrier or wait shows in the numbers too.
//!
//! The way of a kernel: `ptx` reads the text to a syntax tree; `decode` resolves names, expands calls, gives
//! registers rows by liveness; `flow` finds where diverged lanes meet again; `exec` runs blocks on the host's
//! cores, a block's warps in turn, an instruction of a warp as a loop over 32 lanes. `lane` has what is not
//! worth a vector loop, as functions of one lane.
//!
//! What it models: results to the bit where PTX defines them, approximations within their bounds, memory
//! spaces, divergence, barriers, asynchronous copies. What it does not: time, caches, missing fences, the exact
//! rounding of tensor cores, and synchronisation between blocks other than by atomics on the data itself.

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
mod occupancy;
mod ptx;

pub use counters::{Counters, Executed, Traffic};
pub use error::{Error, Result};
pub use fault::{Fault, FaultKind};
pub use gpu::{Gpu, Launch, Schedule};
pub use module::{Kernel, Module, Param, ParamKind};
pub use occupancy::{Bound, Occupancy, occupancy};
