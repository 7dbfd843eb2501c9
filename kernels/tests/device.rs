//! Every kernel compiles for both architectures without a spill, and every case of every op runs on the software
//! GPU, in both schedules, with at most twice the error of its CPU twin.

mod common;

use codelsi_engine::cuda::ACCUMULATE;

#[test]
fn every_variant_compiles_without_a_spill() {
    if common::software_gpu().is_some() {
        let sources = common::ops().into_iter().flat_map(|spec| spec.sources.iter().copied());
        common::compile_without_a_spill(sources.chain([&codelsi_kernels::roof::SOURCE, &ACCUMULATE]));
    }
}

#[test]
fn every_op_agrees_with_its_twin_on_the_software_gpu() {
    if let Some(device) = common::software_gpu() {
        common::agree_with_twins(&common::ops(), &device);
    }
}
