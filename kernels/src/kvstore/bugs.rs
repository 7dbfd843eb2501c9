//! Bugs that the checks of `kvstore` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "kvstore.cu",
        "slots are not looked up",
        ["pages + place(slots, t, N, K, S, D)", "pages + t * D"],
        (BF16, "N=3 K=1 S=4 D=17 T=5"),
    ),
    Bug::new(
        "kvstore.cu",
        "one element too many",
        ["c < K * D", "c <= K * D"],
        (F32, "N=3 K=1 S=4 D=17 T=5"),
    ),
    Bug::new(
        "kvstore.cu",
        "heads and slots of a page change places",
        ["i64(head) * S * D + c - head * D", "c"],
        (BF16, "N=3 K=5 S=4 D=4 T=7"),
    ),
    Bug::new(
        "kvstore.cu",
        "a slot is the row of one head alone",
        ["(i64(page) * K * S + slot - page * S) * D", "i64(slot) * D"],
        (F32, "N=5 K=2 S=16 D=64 T=40"),
    ),
    Bug::new(
        "kvstore.cu",
        "rotated heads follow each other at once",
        ["K, D, P, i64(S) * D)", "K, D, P, D)"],
        (BF16, "rope K=3 D=12 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys go to the place in the batch",
        ["turn(k_pages + at", "turn(k_pages + t * D"],
        (BF16, "rope K=1 D=2 T=3"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys are stored as values",
        ["v_pages + at, v + t * width", "v_pages + at, k + t * width"],
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
        "one head too many, in the next page",
        ["head < H", "head <= H"],
        (BF16, "rope K=1 D=2 T=3"),
    ),
];
