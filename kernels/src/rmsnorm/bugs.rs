//! Bugs that the checks of `rmsnorm` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "prelude.cuh",
        "no barrier between the parts of a block's sum and their reading",
        ["    __syncthreads();\n    return warp_sum(", "    return warp_sum("],
        (BF16, "T=2 C=5120"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "a row is read one element too far",
        ["        if (column(p) < C) {", "        if (column(p) <= C) {"],
        (F32, "T=3 C=17"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "eps outside the root",
        ["sqrtf(block_sum(squares) / C + eps)", "(sqrtf(block_sum(squares) / C) + eps)"],
        (F32, "T=3 C=17"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "the mean of one element too few",
        ["block_sum(squares) / C", "block_sum(squares) / (C - 1)"],
        (BF16, "T=7 C=33"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "1/rms is kept by a thread that small blocks lack",
        ["if (threadIdx.x == 0) *r = scale;", "if (threadIdx.x == 32) *r = scale;"],
        (BF16, "T=7 C=33"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "the residual's gradient is read where there is none",
        ["if (dsum) load(v, dsum", "load(v, dsum"],
        (F32, "T=7 C=33"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "the residual's gradient is left out",
        ["v[i] += scale * (g[p][i]", "v[i] = scale * (g[p][i]"],
        (F32, "add T=7 C=33"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "the last slab of dw goes beyond the rows",
        ["end = min(start + SLAB, T)", "end = start + SLAB"],
        (BF16, "T=66 C=48"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "only the first slab of dw is summed",
        ["s < slabs", "s < 1"],
        (BF16, "T=66 C=48"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "slabs of dw overlap",
        ["i64(blockIdx.y) * C + part", "i64(blockIdx.y) * (C - 8) + part"],
        (BF16, "T=66 C=48"),
    ),
    Bug::new(
        "rmsnorm.cu",
        "dw reads its parts in another order than they are stored",
        ["i64(s) * C + part(c, C)", "i64(s) * C + c"],
        (BF16, "T=66 C=48"),
    ),
];
