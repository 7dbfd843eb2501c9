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
        ["load(sin, table + i64(position) * D + half + j)", "load(sin, table + i64(position) * D + j)"],
        (F32, "T=3 H=1 D=6"),
    ),
    Bug::new("rope.cuh", "one head too many", ["head < H", "head <= H"], (F32, "T=3 H=1 D=6")),
    Bug::new("rope.cuh", "backward turns forwards", ["direction * sin[i]", "sin[i]"], (BF16, "T=7 H=3 D=10")),
    Bug::new("rope.cu", "the angle of the place in the batch", ["positions[t]", "t"], (BF16, "T=7 H=3 D=10")),
    Bug::new(
        "rope.cuh",
        "rows of the table half as long",
        ["load(cos, table + i64(position) * D + j)", "load(cos, table + i64(position) * half + j)"],
        (F32, "T=17 H=2 D=16"),
    ),
    Bug::new(
        "rope.cu",
        "rows one element further apart than they are",
        ["x + t * width", "x + t * (width + 1)"],
        (BF16, "T=17 H=2 D=16"),
    ),
];
