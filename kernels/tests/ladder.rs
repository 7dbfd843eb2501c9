//! The steps that doc/01-rmsnorm.md and doc/02-gemm.md walk through: each is right, and counted as the documents say.
//! `cargo test --release -p codelsi-kernels --test ladder -- --nocapture` prints their tables.

mod common;

use approx::abs_diff_eq;
use codelsi_emulator::Counters;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Nvrtc, Source, Variant};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{DType, Device, Label, Tensor};
use codelsi_kernels::check::{random, value};
use codelsi_kernels::spec::F64Tensor;
use codelsi_kernels::{gemm, rmsnorm};

/// The compiler whose code the documents count.
const COUNTED: (i32, i32) = (13, 0);

const PRELUDE: (&str, &str) = ("prelude.cuh", include_str!("../src/prelude.cuh"));

/// Threads of the blocks of rmsnorm's steps.
const THREADS: usize = 256;
const E: Variant = Variant::PLAIN.dtype("E", DType::BF16);

static RMSNORM_STEPS: Source = Source {
    name: "rmsnorm/ladder.cu",
    text: include_str!("../src/rmsnorm/ladder.cu"),
    headers: &[PRELUDE],
    constants: &[Define::int("THREADS", THREADS)],
    variants: || vec![E],
};

static GEMM_STEPS: Source = Source {
    name: "gemm/ladder.cu",
    text: include_str!("../src/gemm/ladder.cu"),
    headers: &[PRELUDE],
    constants: &[],
    variants: || vec![Variant::PLAIN],
};

fn software_gpu_for(op: &str) -> Option<Device> {
    common::is_selected(op).then(common::software_gpu).flatten()
}

fn operand(device: &Device, shape: [usize; 2], site: u32) -> Tensor {
    random(device, shape.into(), DType::BF16, 1.0, RngKey { seed: 1, step: 0, site }).unwrap()
}

/// The device of a ladder, and the result that every step must give.
struct Ladder<'a> {
    device: &'a Device,
    cuda: &'a Cuda,
    truth: F64Tensor,
}

impl Ladder<'_> {
    /// Launches a kernel whose first argument is the result, and holds the result to the truth.
    fn step(
        &self,
        source: &'static Source,
        variant: Variant,
        kernel: &str,
        grid: Grid,
        rest: Vec<Arg>,
    ) -> Counters {
        let mut y = self.device.empty(Label::Scratch, self.truth.shape, DType::BF16);
        let emulated = self.cuda.emulator().unwrap();
        let code = self.cuda.kernel(source, variant, kernel).unwrap();
        let mut args = vec![Arg::Out(&mut y)];
        args.extend(rest);
        emulated.count_launches();
        // SAFETY: the grids of these tests cover their tensors and no more.
        unsafe { code.launch(grid, &mut args) }.unwrap();
        drop(args);
        let counters = emulated.take_launches().swap_remove(0).counters;
        let truth = &self.truth.data;
        let scale = (truth.iter().map(|y| y * y).sum::<f64>() / truth.len() as f64).sqrt();
        for (y, truth) in value(&y).unwrap().data.iter().zip(truth) {
            // Half a unit in the last place of bf16, and as much again for sums that nearly cancel.
            let limit = (truth.abs() + 0.1 * scale) / 256.0;
            assert!(abs_diff_eq!(*y, *truth, epsilon = limit), "{kernel}: {y}, should be {truth}");
        }
        counters
    }
}

/// A step as a line of its document's table; products have two columns more.
fn line(name: &str, c: &Counters, product: bool) -> String {
    let (loads, stores) = (c.global_loads, c.global_stores);
    let (requests, sectors) = (loads.requests + stores.requests, loads.transactions + stores.transactions);
    let (needed, kib) = (100.0 * c.sector_efficiency(), sectors as f64 / 32.0);
    let mma = if product { format!(" | {}", c.mma.warps) } else { String::new() };
    let conflicts = if product { format!(" | {}", c.bank_conflicts()) } else { String::new() };
    format!(
        "| `{name}` | {}{mma} | {requests} | {:.1} | {needed:.0} % | {kib:.0} | {}{conflicts} | {} |",
        c.warp_instructions,
        sectors as f64 / requests as f64,
        c.shared_loads.transactions + c.shared_stores.transactions,
        c.barrier.warps,
    )
}

/// Prints the lines of a document's table; those of the compiler that it counts must stand in it.
fn hold(document: &str, product: bool, steps: &[(&str, Counters)]) {
    let lines: Vec<String> = steps.iter().map(|(name, counters)| line(name, counters, product)).collect();
    println!("{}", lines.join("\n"));
    if Nvrtc::get().unwrap().version() == COUNTED {
        for line in lines {
            assert!(document.contains(&line), "the document's table lacks {line}");
        }
    }
}

#[test]
fn rmsnorm_in_steps() {
    let Some(device) = software_gpu_for("rmsnorm") else { return };
    let Device::Cuda(cuda) = &device else { unreachable!("a GPU in software") };
    let (t, c, eps) = (32, 5120, 1e-5);
    let (x, w) = (operand(&device, [t, c], 0), operand(&device, [1, c], 1));
    let case = (rmsnorm::spec::SPEC.cases)(DType::BF16).swap_remove(0);
    let truth = (case.reference)(&[&x, &w].map(|t| value(t).unwrap())).swap_remove(0);
    let ladder = Ladder { device: &device, cuda, truth };
    let args = |sizes: &[usize]| {
        let sizes = sizes.iter().map(|&n| Arg::I32(n as i32));
        [Arg::In(&x), Arg::In(&w), Arg::F32(eps)].into_iter().chain(sizes).collect::<Vec<_>>()
    };
    let own =
        |kernel, grid, sizes: &[usize]| (kernel, ladder.step(&RMSNORM_STEPS, E, kernel, grid, args(sizes)));
    let packed = E.dtype("W", DType::BF16).int("VEC", 8);
    let mut r = device.empty(Label::Scratch, [t], DType::F32);
    let last = [Arg::Out(&mut r)].into_iter().chain(args(&[c])).collect();
    let steps = [
        own("by_thread", Grid::new(1, t), &[t, c]),
        own("by_block", Grid::new(t, THREADS), &[c]),
        own("shuffled", Grid::new(t, THREADS), &[c]),
        own("packed", Grid::new(t, THREADS), &[c]),
        ("rmsnorm", ladder.step(rmsnorm::spec::SPEC.sources[0], packed, "rmsnorm", Grid::new(t, 160), last)),
    ];
    hold(include_str!("../../doc/01-rmsnorm.md"), false, &steps);
}

#[test]
fn gemm_in_steps() {
    let Some(device) = software_gpu_for("gemm") else { return };
    let Device::Cuda(cuda) = &device else { unreachable!("a GPU in software") };
    let (n, k) = (256, 256);
    let b = operand(&device, [n, k], 1);
    let ladder = |m: usize| {
        let a = operand(&device, [m, k], 0);
        let truth = gemm::spec::reference(&value(&a).unwrap(), &value(&b).unwrap());
        (Ladder { device: &device, cuda, truth }, a)
    };
    let (many, a) = ladder(128);
    let own = |kernel, [x, y]: [usize; 2], threads| {
        let args = vec![Arg::In(&a), Arg::In(&b), Arg::I32(128), Arg::I32(n as i32), Arg::I32(k as i32)];
        let grid = Grid { blocks: [x, y, 1], threads, shared: 0 };
        (kernel, many.step(&GEMM_STEPS, Variant::PLAIN, kernel, grid, args))
    };
    // A tile of gemm.cu: its number, size, depth of all stages together, and threads.
    let tile =
        |(ladder, a): (&Ladder, &Tensor), shape, [rows, columns]: [usize; 2], depth: usize, threads| {
            let m = a.shape().as_matrix().0;
            let blocks = [m.div_ceil(rows) * n.div_ceil(columns), 1, 1];
            let grid = Grid { blocks, threads, shared: 2 * (rows + columns) * depth };
            let sizes = [m, n, k, k, 0, 0].map(|x| Arg::I32(x as i32));
            let args = [Arg::In(a), Arg::In(&b), Arg::Maybe(None), Arg::I64(0), Arg::I64(0), Arg::I64(0)];
            let args = args.into_iter().chain(sizes).collect();
            let variant =
                Variant::PLAIN.int("FORM", 0).int("SHAPE", shape).dtype("W", DType::BF16).int("ALIGNED", 1);
            ladder.step(gemm::spec::SPEC.sources[0], variant, "gemm", grid, args)
        };
    let (one, row) = ladder(1);
    let steps = [
        own("naive", [n / 32, 128 / 8], 256),
        own("tiled", [n / 32, 128 / 32], 256),
        own("padded", [n / 32, 128 / 32], 256),
        own("registers", [n / 64, 128 / 64], 256),
        own("tensor", [n / 64, 128 / 64], 128),
        own("swizzled", [n / 64, 128 / 64], 128),
        ("gemm 64x64", tile((&many, &a), 2, [64, 64], 64 * 4, 128)),
        ("gemm 128x256", tile((&many, &a), 4, [128, 256], 64 * 3, 256)),
        ("one row, 64x64", tile((&one, &row), 2, [64, 64], 64 * 4, 128)),
        ("one row, 16x32", tile((&one, &row), 0, [16, 32], 128 * 6, 128)),
    ];
    hold(include_str!("../../doc/02-gemm.md"), true, &steps);
}
