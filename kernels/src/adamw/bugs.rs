//! Bugs that the checks of `adamw` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{self, F32};

const SEVERAL: (DType, &str) = (F32, "N=[1, 4096, 9000, 3]");
const NORM: (DType, &str) = (F32, "norm of N=[1, 4096, 9000, 3]");

pub const BUGS: &[Bug] = &[
    Bug::new(
        "adamw.cu",
        "eps inside the root",
        ["(sqrtf(v / h.correction2) + h.eps)", "sqrtf(v / h.correction2 + h.eps)"],
        (F32, "N=40000"),
    ),
    Bug::new("adamw.cu", "the first moment stays biased", ["m / h.correction1", "m"], (F32, "N=17")),
    Bug::new("adamw.cu", "no weight decay", ["p * h.keep", "p"], (F32, "N=17")),
    Bug::new("adamw.cu", "the gradient is not scaled", ["    g *= scale;\n", ""], (F32, "N=17")),
    Bug::new(
        "adamw.cu",
        "the second moment of g, not of its square",
        ["(1.0f - h.beta2) * g * g", "(1.0f - h.beta2) * g"],
        (F32, "N=17"),
    ),
    Bug::new(
        "adamw.cu",
        "the last pack is not bounded",
        ["        if (i + N <= n) {\n            float a[N]", "        if (i < n) {\n            float a[N]"],
        (F32, "N=17"),
    ),
    Bug::new(
        "adamw.cu",
        "only one of the last elements takes the step",
        ["for (; i < n; i++) step(", "if (i < n) step("],
        SEVERAL,
    ),
    Bug::new(
        "adamw.cu",
        "a tensor's first block belongs to the one before",
        ["words - 1] <= block", "words - 1] < block"],
        SEVERAL,
    ),
    Bug::new(
        "adamw.cu",
        "every tensor's blocks are counted from the first one's",
        ["i64(blockIdx.x - row[5])", "i64(blockIdx.x)"],
        SEVERAL,
    ),
    Bug::new(
        "adamw.cu",
        "the norm without its last elements",
        ["sum += double(g[i]) * g[i]", "sum += 0.0"],
        NORM,
    ),
    Bug::new(
        "adamw.cu",
        "no barrier in the tree that sums squares",
        ["        __syncthreads();\n        if (threadIdx.x < width)", "        if (threadIdx.x < width)"],
        NORM,
    ),
    Bug::new(
        "adamw.cu",
        "the tree ends one step early",
        ["width > 0; width /= 2", "width > 1; width /= 2"],
        NORM,
    ),
    Bug::new(
        "adamw.cu",
        "small gradients are scaled up",
        ["+ 1e-6), 1.0)", "+ 1e-6), 2.0)"],
        (F32, "N=4099 steps=[1, 2, 3] squares=0.25"),
    ),
    Bug::new(
        "adamw.cu",
        "an infinite norm moves parameters",
        ["*squares < INFINITE", "*squares <= INFINITE"],
        (F32, "N=4099 steps=[1, 2, 3] squares=inf"),
    ),
    Bug::new(
        "adamw.cu",
        "a norm that is no number moves parameters",
        ["if (!(*squares < INFINITE)) return;", "if (*squares >= INFINITE) return;"],
        (F32, "N=4099 steps=[1, 2, 3] squares=NaN"),
    ),
    Bug::new(
        "adamw.cu",
        "sums of blocks beyond the threads of one are left out",
        ["i < count; i += THREADS", "i < min(count, THREADS); i += THREADS"],
        (F32, "norm of N=[1228800]"),
    ),
];
