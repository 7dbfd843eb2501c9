//! Bugs that the checks of `mixture` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "mixture.cu",
        "the last row is not bounded, forward",
        ["    if (t >= T) return; // the whole warp\n", ""],
        (BF16, "T=3 E=2 R=5"),
    )
    .nth(0),
    Bug::new(
        "mixture.cu",
        "the last row is not bounded, backward",
        ["    if (t >= T) return; // the whole warp\n", ""],
        (F32, "T=3 E=2 R=5"),
    )
    .nth(1),
    Bug::new(
        "mixture.cu",
        "gates are not divided by their total",
        ["- largest) / total", "- largest)"],
        (F32, "T=5 E=4 R=16"),
    ),
    Bug::new(
        "mixture.cu",
        "only the first 32 experts are in the total",
        ["total += exponential", "if (e < 32) total += exponential"],
        (BF16, "T=70 E=35 R=2"),
    ),
    Bug::new(
        "mixture.cu",
        "columns take the gate of the next expert's",
        ["softmax.gate(i / R)", "softmax.gate((i + 1) / R % experts)"],
        (BF16, "T=5 E=4 R=16"),
    ),
    Bug::new("mixture.cu", "the gates' mean is forgotten", ["(h - mean)", "h"], (F32, "T=3 E=2 R=5")),
    Bug::new(
        "mixture.cu",
        "dS is not scaled",
        ["put<E>(scale * g * get(du", "put<E>(g * get(du"],
        (BF16, "T=9 E=3 R=40"),
    ),
];
