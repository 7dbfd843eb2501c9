//! Every op of the engine: one folder each, with its doc (`mod.rs`), its CPU twin (`cpu.rs`) and its
//! float64 reference, cases and cost (`spec.rs`).
//!
//! Adding an op is that folder and one line in [`ALL`]; its tests, gradient check and bench follow from the
//! [`Spec`](spec::Spec).

pub mod check;
pub mod elementwise;
pub mod rmsnorm;
mod rows;
pub mod embed;
pub mod swiglu;
pub mod rope;
pub mod gemm;
pub mod simd;
pub mod spec;

/// Every op's declaration.
pub static ALL: &[&spec::Spec] = &[
    &gemm::spec::SPEC,
];
