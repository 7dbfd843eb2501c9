//! Functions of one lane: operands and result are bits, the mode holds the instruction's modifiers.
//!
//! Inner-loop operations have vector forms in `exec::alu`; all others are one of these functions.

pub mod convert;
pub mod float;
pub mod half;
pub mod int;
pub mod round;
