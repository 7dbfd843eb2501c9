//! Every kernel compiles for both architectures without a spill, and every case of every op runs on the software
//! GPU, in both schedules, with at most twice the error of its CPU twin. Together they run every variant of every kernel,
//! and every branch of the launches.

mod common;

use codelsi_engine::cuda::ACCUMULATE;
use codelsi_kernels::ALL;

#[test]
fn every_variant_compiles_without_a_spill() {
    if common::software_gpu().is_some() {
        let sources = common::ops().into_iter().flat_map(|spec| spec.sources.iter().copied());
        common::compile_without_a_spill(sources.chain([&codelsi_kernels::roof::SOURCE, &ACCUMULATE]));
    }
}

#[test]
fn every_op_passes_on_nan_and_infinities_as_its_twin_does() {
    if let Some(device) = common::software_gpu() {
        common::pass_on_what_is_not_finite(&common::ops(), &device);
    }
}

#[test]
fn every_op_agrees_with_its_twin_on_the_software_gpu() {
    if let Some(device) = common::software_gpu() {
        let ops = common::ops();
        common::agree_with_twins(&ops, &device);
        common::have_run_everything(&ops, &device, ops.len() == ALL.len());
    }
}
