//! Instructions of the CPU's loops on levels that valgrind can run, counted: a guard of speed without a clock.

use codelsi_engine::{Ctx, DType, Device, Label, Tensor};
use codelsi_kernels::flash::{Heads, flash};
use codelsi_kernels::gemm::linear;
use codelsi_kernels::rmsnorm::rmsnorm;
use codelsi_kernels::swiglu::swiglu;
use codelsi_testing::or_skip;
use half::bf16;
use std::process::Command;

/// Names what a child process runs, and how often: `gemm 3`.
const CHILD: &str = "CODELSI_COUNTED";

const ROWS: usize = 96;
const WIDTH: usize = 128;

/// An op, its size in multiply-adds or elements, and the most instructions for one of them with AVX2 and on the portable
/// path: a sixth above those of the loops as they are.
struct Counted {
    name: &'static str,
    work: usize,
    most: [f64; 2],
}

const COUNTED: [Counted; 4] = [
    Counted { name: "gemm", work: ROWS * WIDTH * WIDTH, most: [0.57, 1.7] },
    Counted { name: "flash", work: ROWS * ROWS * WIDTH, most: [1.55, 3.4] },
    Counted { name: "swiglu", work: ROWS * WIDTH, most: [8.8, 21.2] },
    Counted { name: "rmsnorm", work: ROWS * WIDTH, most: [4.8, 9.6] },
];

fn run(name: &str, times: usize) {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().unwrap();
    let device = Device::cpu();
    let cx = Ctx::inference(&device);
    let values = |rows: usize| -> Vec<bf16> {
        (0..rows * WIDTH).map(|i| bf16::from_f32((i * 37 % 101) as f32 * 0.02 - 1.0)).collect()
    };
    let matrix = |rows| device.tensor(Label::Activations, [rows, WIDTH], &values(rows)).unwrap();
    let (x, y, w) = (matrix(ROWS), matrix(ROWS), matrix(WIDTH));
    let vector = device.tensor(Label::Weights, [WIDTH], &values(1)).unwrap();
    let documents = device.tensor(Label::Activations, [2], &[0i32, ROWS as i32]).unwrap();
    let heads = Heads { heads: 2, kv_heads: 2, head_dim: WIDTH / 2 };
    for _ in 0..times {
        let y: Tensor = match name {
            "gemm" => linear(&cx, &x, &w),
            "flash" => flash(&cx, &x, &y, &x, &documents, heads),
            "swiglu" => swiglu(&cx, &x, &y),
            _ => rmsnorm(&cx, &x, &vector, 1e-5),
        }
        .unwrap();
        assert_eq!(y.dtype(), DType::BF16);
    }
}

/// Instructions that this program executes to run an op `times` times.
fn instructions(level: &str, name: &str, times: usize) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--exact", "instructions_for_each_element", "--test-threads=1"])
        .env("CODELSI_SIMD", level)
        .env(CHILD, format!("{name} {times}"))
        .output()
        .map_err(|e| format!("valgrind does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counts nothing: {text}"))
}

#[test]
fn instructions_for_each_element() {
    if let Ok(child) = std::env::var(CHILD) {
        let (name, times) = child.split_once(' ').unwrap();
        return run(name, times.parse().unwrap());
    }
    for op in &COUNTED {
        for (level, most) in ["avx2", "portable"].into_iter().zip(op.most) {
            let count = |times| instructions(level, op.name, times);
            let Some((once, thrice)) = or_skip(count(1).and_then(|once| Ok((once, count(3)?)))) else {
                return;
            };
            let each = (thrice - once) / 2.0 / op.work as f64;
            println!("{} {level}: {each:.3}", op.name);
            assert!(each <= most, "{} on {level}: {each:.3} instructions instead of {most}", op.name);
        }
    }
}
