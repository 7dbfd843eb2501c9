//! Every op against its float64 reference, on every instruction set of this machine, and bit-equal for any
//! number of threads. One test each, in sequence inside: the instruction set is a process-wide limit.

use codelsi_kernels::simd::{self, Level};
use codelsi_kernels::{ALL, check};

const SEED: u64 = 20260914;

fn on_threads<T: Send>(n: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(f)
}

#[test]
fn every_op_agrees_with_its_reference_and_repeats_its_bits() {
    for level in Level::ALL.into_iter().filter(|&l| l <= simd::detected()) {
        simd::limit(level);
        for spec in ALL {
            let report =
                check::against_reference(spec, SEED).unwrap_or_else(|e| panic!("{}: {e}", level.name()));
            println!(
                "{:<11} {:<12} {:>3} cases, worst {:.2} of the limit ({})",
                level.name(),
                spec.name,
                report.cases,
                report.worst_ratio,
                report.worst
            );
            let once = check::fingerprint(spec, SEED).unwrap();
            for threads in [1, 2, 3, 7] {
                let again = on_threads(threads, || check::fingerprint(spec, SEED).unwrap());
                assert!(once == again, "{} on {threads} threads has other bits", spec.name);
            }
        }
    }
}
