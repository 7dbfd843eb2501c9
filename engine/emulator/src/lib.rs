//! A GPU in software: it parses the PTX that NVRTC emits and executes it, warps in lock step, with the checks of a
//! sanitizer.
//!
//! Start at [`Gpu`]: allocate, write, [`Gpu::load`] a module, [`Gpu::launch`] a kernel, read. A failed check inside a
//! kernel is one [`Fault`] that names the kernel, the PTX line, the CUDA line, the block and the thread.
//!
//! ```
//! use codelsi_emulator::{Gpu, LaunchConfig};
//!
//! # fn main() -> Result<(), codelsi_emulator::Error> {
//! let gpu = Gpu::new("sm_80")?;
//! let module = gpu.load(
//!     ".version 9.0 .target sm_80 .address_size 64
//!      .visible .entry double(.param .u64 x) { // x[tid] *= 2
//!          .reg .b32 %r<3>; .reg .b64 %rd<3>;
//!          ld.param.u64 %rd1, [x];
//!          mov.u32 %r1, %tid.x;
//!          mul.wide.u32 %rd2, %r1, 4;
//!          add.s64 %rd1, %rd1, %rd2;
//!          ld.global.u32 %r2, [%rd1];
//!          shl.b32 %r2, %r2, 1;
//!          st.global.u32 [%rd1], %r2;
//!          ret; }",
//! )?;
//! let x = gpu.alloc(8)?;
//! gpu.write(x, &[7, 0, 0, 0, 21, 0, 0, 0])?;
//! let kernel = module.kernel("double").expect("the kernel of the text above");
//! let launch = |threads| LaunchConfig { grid: [1; 3], block: [threads, 1, 1], shared_bytes: 0 };
//! gpu.launch(kernel, launch(2), &x.to_le_bytes())?;
//! let mut bytes = [0; 8];
//! gpu.read(x, &mut bytes)?;
//! assert_eq!(bytes, [14, 0, 0, 0, 42, 0, 0, 0]);
//! let fault = gpu.launch(kernel, launch(3), &x.to_le_bytes()).unwrap_err().to_string();
//! assert!(fault.starts_with("double: out of bounds: "), "{fault}");
//! # Ok(())
//! # }
//! ```
//!
//! The checks are those of NVIDIA's compute-sanitizer (memcheck, racecheck, initcheck, synccheck; see [`FaultKind`]).
//! Run a program in both schedules ([`Gpu::set_schedule`]): they differ in everything that the program leaves open,
//! so that a missing barrier or wait shows in the results too.
//!
//! Exact: results, to the bit where PTX defines them; approximations, within their error bounds; state spaces,
//! divergence, barriers, asynchronous copies. Not modelled: time, caches, missing fences, the rounding inside a
//! tensor-core product, and synchronisation between blocks other than by atomics on the data itself.
//!
//! The files in reading order, following a kernel from text to execution:
//!
//! | file | what it does |
//! |---|---|
//! | `gpu`, `load`, `module` | the device, loading of a module, its kernels and their parameters |
//! | `memory`, `address_space` | allocations with uninitialised bytes marked; the windows of generic addresses |
//! | `ptx/` | lexer and parser: PTX text to a syntax tree |
//! | `inst` | the decoded instruction, the target of `decode/` and the input of `exec/` |
//! | `decode/` | resolves names, inlines calls, lowers instructions, allocates registers |
//! | `control_flow` | the reconvergence points of diverged lanes (immediate post-dominators) |
//! | `exec/launch`, `thread_block`, `warp`, `control` | blocks on the host's cores, a block's warps in turn, branches |
//! | `exec/wait` | blocks that wait for others, by a loop that sleeps: set aside, and resumed |
//! | `exec/registers`, `alu`, `mma`; `lane/` | arithmetic: loops over 32 lanes; functions of one lane |
//! | `exec/access`, `address`, `atomic`, `copy`, `matrix` | instructions that access memory, with memcheck |
//! | `exec/footprint` | what all lanes of a request say together: bounds, sectors, bank conflicts; remembered |
//! | `exec/barrier`, `collective` | instructions of a whole block or warp, with synccheck |
//! | `exec/vector_clock`, `last_access`, `shared_memory`, `global_shadow`, `grid_races` | racecheck: happens-before order, shadow memory |
//! | `exec/taint` | initcheck: uninitialised bits followed through registers |
//! | `fault`, `error` | faults of kernels, errors of calls |
//! | `counters`, `occupancy` | instructions, sectors, bank conflicts; resident blocks |

#![warn(missing_docs)]

mod address_space;
mod control_flow;
mod counters;
mod decode;
mod error;
mod exec;
mod fault;
mod gpu;
mod inst;
mod lane;
mod load;
mod memory;
mod module;
mod occupancy;
mod ptx;

pub use counters::{Counters, InstructionCount, Traffic};
pub use error::{Error, Result};
pub use fault::{Fault, FaultKind};
pub use gpu::{Gpu, LaunchConfig, Schedule};
pub use module::{Kernel, Module, Param, ParamKind};
pub use occupancy::{LimitingResource, Occupancy, occupancy};
