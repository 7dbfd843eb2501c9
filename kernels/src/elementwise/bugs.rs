//! Bugs that the checks of `elementwise` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "map.cuh",
        "the last pack is not bounded",
        ["    if (i + N <= n) {", "    if (i < n) {"],
        (BF16, "add T=3 C=17"),
    ),
    Bug::new(
        "map.cuh",
        "the last element is left out",
        ["for (; i < n; i++)", "for (; i + 1 < n; i++)"],
        (BF16, "relu T=3 C=17"),
    ),
    Bug::new(
        "map.cuh",
        "only one of the last elements is computed",
        ["for (; i < n; i++)", "if (i < n)"],
        (BF16, "cast T=3 C=17"),
    ),
    Bug::new(
        "map.cuh",
        "packs are read off their alignment",
        ["values<N>(x + i)", "values<N>(x + i + 1)"],
        (F32, "cast T=3 C=17"),
    ),
    Bug::new(
        "map.cuh",
        "a pack's first element stands for all",
        ["{F(x.at[j]...)}", "{F(x.at[0]...)}"],
        (BF16, "add T=5 C=5120"),
    ),
    Bug::new("elementwise.cu", "a is added to itself", ["n, a, b)", "n, a, a)"], (BF16, "add T=3 C=17")),
    Bug::new(
        "elementwise.cu",
        "what is below zero passes",
        ["of > 0.0f ? x : 0.0f", "x"],
        (BF16, "relu T=5 C=5120"),
    ),
    Bug::new(
        "elementwise.cu",
        "the gradient's own sign decides",
        ["n, x, of)", "n, x, x)"],
        (F32, "relu T=3 C=17"),
    ),
    Bug::new(
        "elementwise.cu",
        "packs are half as long as the grid takes them for",
        ["map<same, 4>", "map<same, 2>"],
        (F32, "cast T=5 C=5120"),
    ),
];
