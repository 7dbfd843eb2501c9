//! Bugs that the checks of `kvstore` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "kvstore.cu",
        "slots are not looked up",
        ["pages + place(slots, t, limit) * width", "pages + t * width"],
        (BF16, "N=3 S=4 K·D=17 T=5"),
    ),
    Bug::new("kvstore.cu", "one element too many", ["c < width", "c <= width"], (F32, "N=3 S=4 K·D=17 T=5")),
    Bug::new(
        "kvstore.cu",
        "keys go to the place in the batch",
        ["turn(k_pages + slot * width", "turn(k_pages + t * width"],
        (BF16, "rope K=1 D=2 T=3"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys are stored as values",
        ["slot * width, v + t * width", "slot * width, k + t * width"],
        (F32, "rope K=3 D=12 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys are turned back",
        ["positions[t], 1.0f", "positions[t], -1.0f"],
        (BF16, "rope K=3 D=12 T=2"),
    ),
    Bug::new(
        "rope.cuh",
        "one head too many, in the next slot",
        ["head < H", "head <= H"],
        (BF16, "rope K=1 D=2 T=3"),
    ),
];
