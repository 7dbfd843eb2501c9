//! Every op at sizes of Code Llama 13B, forward and backward, on random data: on a GPU by CUDA events, the L2 cache
//! flushed before each run; without one the CPU twins, by the host's clock, with fewer rows where a call takes long.
//!
//!     cargo bench -p codelsi-benches --bench ops                           # all
//!     cargo bench -p codelsi-benches --bench ops -- gemm/BF16              # benches whose name matches
//!     cargo bench -p codelsi-benches --bench ops --features cublaslt       # bf16 products compared with cuBLASLt
//!     CODELSI_BENCH_DEVICE=cpu cargo bench -p codelsi-benches --bench ops  # the CPU twins, GPU or not
//!
//! A filter is a regular expression over `OP/DTYPE SHAPE PASS`: `gemm`, `BF16`, `T=4096`, `flash/BF16.*Backward`.
//! Criterion leaves its plots in `target/criterion/report/index.html`. Two commits are compared by `benches/compare.sh`:
//! criterion's own comparison with the run before is off unless a baseline is named, because it takes the drift of a
//! machine between two runs for a difference.
//!
//! For a machine without cargo, `cargo bench -p codelsi-benches --bench ops --no-run` prints the path of the binary to
//! copy; it takes `--bench` and the same arguments. `CODELSI_BENCH_SAVE=1` keeps the results as a dated file in
//! `benches/results`. The last line is one JSON object: for each bench the median, the
//! rate in the unit of the binding roof, and its share of that roof, which is measured before and after.

use codelsi_benches::machine::Machine;
use codelsi_benches::results::{Timings, report, save};
use codelsi_engine::{DType, Result};
use codelsi_kernels::ALL;
use codelsi_kernels::spec::{Case, Spec};
use codelsi_kernels::stopwatch::{Pass, TimedCase};
use criterion::{Criterion, SamplingMode};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ops: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .retain_baseline("none".into(), false)
        .configure_from_args();
    let mut machine = Machine::new()?;
    let mut all = Vec::new();
    for spec in ALL {
        for dtype in [DType::BF16, DType::F32] {
            for real in spec.shapes.real {
                let sizes = machine.sizes(spec, dtype, real);
                bench_op(&mut criterion, &mut machine, spec, dtype, &sizes, &mut all);
                if (spec.name, dtype, machine.is_gpu()) == ("gemm", DType::BF16, true) {
                    bench_cublaslt(&mut criterion, &sizes, &mut all);
                }
            }
        }
    }
    criterion.final_summary();
    machine.measure()?;
    println!("{}", machine.title());
    let results = report(&machine, all);
    save("ops", &machine.title(), &results)?;
    println!("{results}");
    Ok(())
}

/// Benches the forward of an op, and its backward where the spec states its cost.
fn bench_op(
    criterion: &mut Criterion,
    machine: &mut Machine,
    spec: &'static Spec,
    dtype: DType,
    sizes: &[usize],
    all: &mut Vec<Timings>,
) {
    let case = || (spec.shapes.case)(dtype, sizes);
    let Case { name, cost, .. } = case();
    let backward = spec.shapes.backward.map(|cost| (Pass::Backward, cost(dtype, sizes)));
    let Machine { device, stopwatch: watch, .. } = machine;
    let mut work = None;
    for (pass, cost) in [(Pass::Forward, cost)].into_iter().chain(backward) {
        let timings = Timings::new(format!("{dtype:?} {name} {pass:?}"), dtype, cost);
        bench(criterion, spec.name, timings, all, || {
            let work = match &mut work {
                Some(work) => work,
                None => work.insert(TimedCase::new(device, case(), dtype)?),
            };
            work.time(pass, watch)
        });
    }
}

/// Benches the same product by cuBLASLt.
#[cfg(feature = "cublaslt")]
fn bench_cublaslt(criterion: &mut Criterion, sizes: &[usize], all: &mut Vec<Timings>) {
    use codelsi_benches::cublaslt::{CublasLtProduct, check_present};
    use codelsi_kernels::gemm;
    if let Err(e) = check_present() {
        println!("{e}");
        return;
    }
    let case = (gemm::spec::SPEC.shapes.case)(DType::BF16, sizes);
    let timings = Timings::new(format!("BF16 {} cuBLASLt", case.name), DType::BF16, case.cost);
    let mut product = None;
    bench(criterion, "gemm", timings, all, || {
        let product = match &mut product {
            Some(product) => product,
            None => product.insert(CublasLtProduct::new([sizes[0], sizes[1], sizes[2]])?),
        };
        product.time()
    });
}

/// Prints once that this binary was built without cuBLASLt.
#[cfg(not(feature = "cublaslt"))]
fn bench_cublaslt(_: &mut Criterion, _: &[usize], _: &mut Vec<Timings>) {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| println!("no comparison with cuBLASLt: built without the feature `cublaslt`"));
}

/// Runs `once` under criterion, and keeps its times except for the first, which includes compilation and allocation.
fn bench(
    criterion: &mut Criterion,
    op: &str,
    mut timings: Timings,
    all: &mut Vec<Timings>,
    mut once: impl FnMut() -> Result<Duration>,
) {
    let name = timings.name.clone();
    let mut timed = |first: bool| {
        let time = once().unwrap_or_else(|e| panic!("{op} {name}: {e}"));
        if !first {
            timings.times.push(time);
        }
        time
    };
    let mut first = true;
    let mut group = criterion.benchmark_group(op);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(&name, |b| {
        if std::mem::take(&mut first) {
            timed(true);
        }
        b.iter_custom(|runs| (0..runs).map(|_| timed(false)).sum());
    });
    group.finish();
    timings.name = format!("{op}/{name}");
    all.push(timings);
}
