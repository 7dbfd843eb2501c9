//! Every kernel compiles for both architectures without a spill, and every case of every op runs on the software
//! GPU, in both schedules, with at most twice the error of its CPU twin.

use codelsi_engine::Device;
use codelsi_engine::cuda::{ACCUMULATE, Nvrtc, compile};
use codelsi_kernels::{ALL, check};

const SEED: u64 = 20260914;

/// Whether there is a compiler; says so when there is none. With `CODELSI_REQUIRE=all` that is a failure.
fn nvrtc() -> bool {
    match Nvrtc::get() {
        Ok(_) => true,
        Err(e) => {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
            false
        }
    }
}

#[test]
fn every_variant_compiles_without_a_spill() {
    if !nvrtc() {
        return;
    }
    let sources = ALL.iter().flat_map(|spec| spec.sources.iter().copied());
    for source in sources.chain([&codelsi_kernels::roof::SOURCE, &ACCUMULATE]) {
        for (arch, variant) in
            ["sm_80", "sm_90a"].into_iter().flat_map(|a| (source.variants)().into_iter().map(move |v| (a, v)))
        {
            let code = compile(source, variant, arch).unwrap();
            let resources = code.resources();
            assert!(!resources.is_empty(), "{} {variant}: no kernel", source.name);
            for kernel in resources {
                assert!(
                    kernel.spills == 0 && kernel.stack == 0,
                    "{} {variant} {arch}: {kernel:?}",
                    source.name
                );
            }
        }
    }
}

#[test]
fn every_op_agrees_with_its_twin_on_the_software_gpu() {
    if !nvrtc() {
        return;
    }
    let device = Device::emulated("sm_80").unwrap();
    // CODELSI_OPS=gemm,lora: these alone.
    let wanted = std::env::var("CODELSI_OPS").ok();
    let wanted = |name| wanted.as_ref().is_none_or(|ops| ops.split(',').any(|op| op == name));
    for spec in ALL.iter().filter(|spec| !spec.sources.is_empty() && wanted(spec.name)) {
        let report = check::on_device(spec, &device, SEED).unwrap();
        let (cases, worst) = (report.cases, report.worst_ratio);
        println!("{:<12} {cases:>3} cases, worst {worst:.2} of the limit ({})", spec.name, report.worst);
    }
}
