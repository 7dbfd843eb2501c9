//! Bugs that the checks of `rope` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "rope.cuh",
        "the second half is turned by the first one's new value",
        ["x1[i] * cos[i] + first * sine", "x1[i] * cos[i] + x0[i] * sine"],
        (BF16, "T=7 H=3 D=10"),
    ),
    Bug::new(
        "rope.cuh",
        "cosines are read as sines",
        ["load(sin, row + D / 2 + j)", "load(sin, row + j)"],
        (F32, "T=3 H=1 D=6"),
    ),
    Bug::new("rope.cu", "one head too many", ["head < H", "head <= H"], (F32, "T=3 H=1 D=6")),
    Bug::new("rope.cuh", "backward turns forwards", ["direction * sin[i]", "sin[i]"], (BF16, "T=7 H=3 D=10")),
    Bug::new("rope.cu", "the angle of the place in the batch", ["positions[t]", "t"], (BF16, "T=7 H=3 D=10")),
    Bug::new(
        "rope.cuh",
        "rows of the table half as long",
        ["table + i64(position) * D, j", "table + i64(position) * (D / 2), j"],
        (F32, "T=17 H=2 D=16"),
    ),
    Bug::new(
        "rope.cu",
        "rows one element further apart than they are",
        ["x + (t * H + head) * D", "x + (t * H + head) * D + t"],
        (BF16, "T=17 H=2 D=16"),
    ),
    Bug::new(
        "rope.cuh",
        "no barrier after one warp has fetched the angles",
        ["        __syncthreads();\n", ""],
        (BF16, "T=2 H=40 D=128"),
    )
    .quiet(),
    Bug::new(
        "rope.cuh",
        "the second fours of angles lie where they are not read",
        ["q % 2 * (D / 8)", "q % 2 * (D / 4)"],
        (BF16, "T=2 H=40 D=128"),
    ),
];
