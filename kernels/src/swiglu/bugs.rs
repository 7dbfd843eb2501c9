//! Bugs that the checks of `swiglu` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "prelude.cuh",
        "silu is the sigmoid alone",
        ["gate * sigmoid<Elem>(gate)", "sigmoid<Elem>(gate)"],
        (F32, "T=3 F=17"),
    ),
    Bug::new(
        "swiglu.cu",
        "the sigmoid's slope is s instead of 1 - s",
        ["gate * (1.0f - s)", "gate * s"],
        (F32, "T=3 F=17"),
    ),
    Bug::new("swiglu.cu", "dup without the gate", ["dy * gate * s}", "dy * s}"], (BF16, "T=5 F=33")),
    Bug::new(
        "swiglu.cu",
        "gate and up change places",
        ["n, gate, up); }", "n, up, gate); }"],
        (BF16, "T=3 F=17"),
    ),
    Bug::new(
        "swiglu.cu",
        "dgate and dup change places",
        ["{dgate, dup}", "{dup, dgate}"],
        (BF16, "T=3 F=17"),
    ),
    Bug::new(
        "map.cuh",
        "every output gets the first result",
        ["results.at[k]", "results.at[0]"],
        (F32, "T=2 F=13824"),
    ),
];
