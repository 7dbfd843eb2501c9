//! Bugs that the checks of `kvstore` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "kvstore.cu",
        "slots are not looked up",
        ["i64 t = blockIdx.x, at = place(slots, t, N, K, S, D);", "i64 t = blockIdx.x, at = t * D;"],
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
        ["apart = i64(S) * D", "apart = D"],
        (BF16, "rope H=3 K=3 D=12 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys go to the place in the batch",
        ["k_pages + at + kv", "k_pages + t * D + kv"],
        (BF16, "rope H=1 K=1 D=2 T=3"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys are stored as values",
        ["kv * apart, v + (t", "kv * apart, k + (t"],
        (F32, "rope H=3 K=3 D=12 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "keys are turned back",
        ["k + (t * K + kv) * D, 1.0f", "k + (t * K + kv) * D, -1.0f"],
        (BF16, "rope H=3 K=3 D=12 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "queries are as far apart as keys",
        ["q + (t * H + head)", "q + (t * K + head)"],
        (BF16, "rope H=10 K=5 D=72 T=9"),
    ),
    Bug::new(
        "kvstore.cu",
        "every block takes the first heads",
        ["blockIdx.y * rotation.heads + rotation.head", "rotation.head"],
        (BF16, "rope H=40 K=40 D=128 T=2"),
    ),
    Bug::new(
        "kvstore.cu",
        "values end with as many heads as keys are before them",
        ["head >= H + 2 * K", "head >= H + K"],
        (F32, "rope H=6 K=3 D=70 T=9"),
    ),
    Bug::new(
        "rope.cuh",
        "the second half of a head is not copied",
        [
            "        *reinterpret_cast<Packed *>(y + D / 2 + j) = \
             *reinterpret_cast<const Packed *>(x + D / 2 + j);\n",
            "",
        ],
        (BF16, "rope H=3 K=3 D=12 T=2"),
    ),
];
