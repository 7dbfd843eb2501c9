//! Functions of one lane: operands and result are bits, `mode` is what the instruction's modifiers say.
//!
//! Inner-loop operations have vector forms in `exec::alu`; everything else is one of these.

pub mod convert;
pub mod float;
pub mod half;
pub mod int;
pub mod round;
