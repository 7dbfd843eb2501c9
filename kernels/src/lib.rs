//! Every op of the engine: one folder each, with its doc (`mod.rs`), its CPU twin (`cpu.rs`) and its
//! float64 reference, cases and cost (`spec.rs`).
//!
//! Adding an op is that folder and one line in [`ALL`]; its tests, gradient check and bench follow from the
//! [`Spec`](spec::Spec).

pub mod adamw;
pub mod check;
pub mod elementwise;
pub mod embed;
pub mod gemm;
pub mod kvstore;
pub mod rmsnorm;
pub mod rope;
mod rows;
pub mod simd;
pub mod spec;
pub mod swiglu;

/// Every op's declaration.
pub static ALL: &[&spec::Spec] = &[
    &adamw::spec::SPEC,
    &elementwise::spec::SPEC,
    &embed::spec::SPEC,
    &gemm::spec::SPEC,
    &kvstore::spec::SPEC,
    &rmsnorm::spec::SPEC,
    &rope::spec::SPEC,
    &swiglu::spec::SPEC,
];
