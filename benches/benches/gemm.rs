//! Matrix products of the CPU twin against the measured peak of the machine, on random data.
//!
//! `cargo bench -p codelsi-benches --bench gemm`; the last line is one JSON object of ratios to the roof. Clock
//! frequencies vary, so the roof is measured before and after each product, and the higher value counts.
//! `CODELSI_BENCH_SAVE=1` keeps the results as a dated file in `benches/results`.

use codelsi_benches::machine::cpu_name;
use codelsi_benches::results::{Timings, save};
use codelsi_engine::{Ctx, DType, Device, Tensor, rng::RngKey};
use codelsi_kernels::check::random;
use codelsi_kernels::spec::Cost;
use codelsi_kernels::{gemm, roof};
use criterion::{Criterion, Throughput};
use serde_json::{Map, json};
use std::hint::black_box;
use std::time::Instant;

/// (T, N, K): square, a reduced training batch of an MLP, and one and 16 rows of decoding.
const SIZES: [(usize, usize, usize); 4] =
    [(2048, 2048, 2048), (512, 5632, 2048), (1, 5632, 2048), (16, 5632, 2048)];

fn main() {
    let mut criterion =
        Criterion::default().sample_size(10).retain_baseline("none".into(), false).configure_from_args();
    let (mut ratios, mut results) = (Map::new(), Map::new());
    for dtype in [DType::BF16, DType::F32] {
        for (t, n, k) in SIZES {
            let name = format!("gemm/{dtype:?}/{t}x{n}x{k}");
            let device = Device::cpu();
            let measure_roof = || roof::flops(&device, dtype).unwrap().unwrap() / 1e9;
            let cx = Ctx::inference(&device);
            let operand = |rows: usize, site: u32| -> Tensor {
                random(&device, [rows, k].into(), dtype, 1.0, RngKey { seed: 1, step: 0, site }).unwrap()
            };
            let (x, w) = (operand(t, 0), operand(n, 1));
            let flops = 2.0 * (t * n * k) as f64;
            let before = measure_roof();
            let mut timings = Timings::new(name.clone(), dtype, Cost { bytes: 0.0, flops });
            let mut group = criterion.benchmark_group("gemm");
            group.throughput(Throughput::Elements(flops as u64));
            group.bench_function(&name, |b| {
                b.iter(|| {
                    let start = Instant::now();
                    black_box(gemm::linear(&cx, &x, &w).unwrap());
                    timings.times.push(start.elapsed());
                })
            });
            group.finish();
            if let Some([min, median, max]) = timings.spread() {
                let (roof, reached) = (before.max(measure_roof()), flops / min / 1e9);
                let threads = rayon::current_num_threads();
                println!("{name}: {reached:.0} of {roof:.0} GFLOP/s on {threads} threads");
                let row = json!({ "min_s": min, "median_s": median, "max_s": max, "gflop_per_s": reached, "roof": roof });
                results.insert(name.clone(), row);
                ratios
                    .insert(name, json!(roof::share(reached, roof).map(|share| (1e3 * share).round() / 1e3)));
            }
        }
    }
    criterion.final_summary();
    if let Err(e) = save("gemm", &cpu_name(), &json!(results)) {
        eprintln!("gemm: {e}");
    }
    println!("{}", json!(ratios));
}
