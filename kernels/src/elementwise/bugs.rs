//! Bugs that the checks of `elementwise` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "elementwise.cu",
        "the last pack of a sum is not bounded",
        ["    if (i + N <= n) {", "    if (i < n) {"],
        (BF16, "add T=3 C=17"),
    )
    .nth(0),
    Bug::new(
        "elementwise.cu",
        "the last elements add a to itself",
        ["get(a[i]) + get(b[i])", "get(a[i]) + get(a[i])"],
        (BF16, "add T=3 C=17"),
    ),
    Bug::new(
        "elementwise.cu",
        "only one of the last elements is converted",
        ["for (; i < n; i++) y[i] = put<TO>", "if (i < n) y[i] = put<TO>"],
        (BF16, "cast T=3 C=17"),
    ),
    Bug::new(
        "elementwise.cu",
        "packs are read off their alignment",
        ["load(v, x + i);", "load(v, x + i + 1);"],
        (F32, "cast T=3 C=17"),
    )
    .nth(1),
    Bug::new(
        "elementwise.cu",
        "what is below zero passes",
        ["sign[j] > 0.0f ? v[j] : 0.0f", "v[j]"],
        (BF16, "relu T=5 C=5120"),
    ),
    Bug::new(
        "elementwise.cu",
        "the gradient's own sign decides, in the last elements",
        ["get(of[i]) > 0.0f", "get(x[i]) > 0.0f"],
        (F32, "relu T=3 C=17"),
    ),
];
