//! The recipe of ARCHITECTURE.md, followed: GELU is an op of one folder, and passes every check that the ops of the crate
//! pass. Its files stand here as they would in `kernels/src/gelu`, where `crate` is the library.

use codelsi_kernels::{bug, elementwise, simd, spec};

#[path = "../common/mod.rs"]
mod common;
mod gelu;

use codelsi_engine::Device;
use codelsi_kernels::ALL;
use std::path::Path;

#[test]
fn an_op_of_one_folder_passes_every_check() {
    if !common::is_selected("gelu") {
        return;
    }
    let ops = [&gelu::spec::SPEC];
    common::agree_with_references(&ops);
    common::hold_batch_invariance(&ops, &Device::cpu());
    common::have_bugs_in_every_kernel(&ops);
    let Some(device) = common::software_gpu() else { return };
    common::compile_without_a_spill(gelu::spec::SPEC.sources.iter().copied());
    common::agree_with_twins(&ops, &device);
    common::pass_on_what_is_not_finite(&ops, &device);
    common::have_run_everything(&ops, &device, true);
    common::hold_batch_invariance(&ops, &device);
    assert_eq!(common::see_bugs(&ops), [3, 3]);
}

/// A folder that is left out of `ALL` would be tested by nothing.
#[test]
fn every_folder_with_a_spec_is_listed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(src).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        if folder.join("spec.rs").exists() {
            let listed = ALL.iter().any(|spec| spec.name == name);
            assert!(listed, "add `&{name}::spec::SPEC` to ALL in kernels/src/lib.rs");
        }
    }
}
