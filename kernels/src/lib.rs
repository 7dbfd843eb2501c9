//! Every op of the engine: one folder each, with its doc (`mod.rs`), its CPU twin (`cpu.rs`), its kernels and their
//! launches (`NAME.cu`, `cuda.rs`), its float64 reference, cases and cost (`spec.rs`) and its seeded bugs (`bugs.rs`).
//!
//! Adding an op is that folder, a line for its module and a line in [`ALL`]; its tests, gradient check and bench follow
//! from the [`Spec`](spec::Spec).
//!
//! ```
#![doc = include_str!("../examples/kernel_against_reference.rs")]
//! ```

pub mod adamw;
mod aligned;
pub mod bias;
pub mod bug;
pub mod check;
pub mod concat;
mod cuda;
mod disjoint;
pub mod distill;
pub mod dora;
pub mod dropout;
pub mod elementwise;
pub mod embed;
pub mod flash;
pub mod gemm;
pub mod kvstore;
pub mod lora;
pub mod mixture;
pub mod rmsnorm;
pub mod roof;
pub mod rope;
pub mod rows;
pub mod sample;
pub mod simd;
pub mod spec;
pub mod stopwatch;
pub mod swiglu;
pub mod xent;

/// The declarations of all ops.
pub static ALL: &[&spec::Spec] = &[
    &adamw::spec::SPEC,
    &bias::spec::SPEC,
    &concat::spec::SPEC,
    &distill::spec::SPEC,
    &dora::spec::SPEC,
    &dropout::spec::SPEC,
    &elementwise::spec::SPEC,
    &embed::spec::SPEC,
    &flash::spec::SPEC,
    &flash::paged_spec::SPEC,
    &gemm::spec::SPEC,
    &kvstore::spec::SPEC,
    &lora::spec::SPEC,
    &mixture::spec::SPEC,
    &rmsnorm::spec::SPEC,
    &rope::spec::SPEC,
    &sample::spec::SPEC,
    &swiglu::spec::SPEC,
    &xent::spec::SPEC,
];
