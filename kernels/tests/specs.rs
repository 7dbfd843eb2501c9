//! Every op against its float64 reference, on every instruction set of this machine, and bit-equal for any
//! number of threads. One test, in sequence inside: the instruction set is a process-wide limit.

mod common;

#[test]
fn every_op_agrees_with_its_reference_and_repeats_its_bits() {
    common::agree_with_references(&common::ops());
}
