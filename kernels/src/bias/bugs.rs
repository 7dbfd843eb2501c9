//! Bugs that the checks of `bias` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "bias.cu",
        "one element too many",
        ["c < N; c += blockDim", "c <= N; c += blockDim"],
        (F32, "T=3 N=17"),
    ),
    Bug::new(
        "bias.cu",
        "the bias of another column",
        ["load(bias, b + c)", "load(bias, b)"],
        (BF16, "T=2 N=5120"),
    ),
    Bug::new(
        "bias.cu",
        "rows after the first of each warp are left out",
        ["t < T && c < N", "t < WARPS && t < T && c < N"],
        (BF16, "T=66 N=48"),
    ),
    Bug::new(
        "bias.cu",
        "the last warp is left out",
        ["l < WARPS; l++", "l + 1 < WARPS; l++"],
        (F32, "T=70 N=137"),
    ),
    Bug::new(
        "bias.cu",
        "no barrier before the warps' sums are read",
        ["    __syncthreads();\n", ""],
        (BF16, "T=66 N=48"),
    ),
    Bug::new("bias.cu", "rows beyond the last column", ["t < T && c < N", "t < T"], (F32, "T=3 N=17")),
];
