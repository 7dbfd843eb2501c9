//! Bugs that the checks of `dora` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "dora.cu",
        "rows beyond the last are read",
        ["row[i] = min(first + i, N - 1);", "row[i] = first + i;"],
        (F32, "T=5 C=33 R=3 N=7"),
    ),
    Bug::new(
        "dora.cu",
        "rows beyond the last are written",
        ["lane() == 0 && first + i < N", "lane() == 0"],
        (F32, "T=5 C=33 R=3 N=7"),
    ),
    Bug::new(
        "dora.cu",
        "the change is not scaled",
        ["v[i] += scale * b", "v[i] += b"],
        (BF16, "T=70 C=40 R=16 N=24"),
    ),
    Bug::new(
        "dora.cu",
        "a lane's own sum passes for the warp's",
        ["sqrtf(warp_sum(squares[i]))", "sqrtf(squares[i])"],
        (F32, "T=70 C=40 R=16 N=24"),
    ),
    Bug::new(
        "dora.cu",
        "channels are divided by their magnitude",
        ["length[i] / norm[i]", "norm[i] / length[i]"],
        (BF16, "T=5 C=33 R=3 N=7"),
    ),
    Bug::new(
        "dora.cu",
        "the last slab is not bounded",
        ["end = min(start + SLAB, T)", "end = start + SLAB"],
        (BF16, "T=70 C=40 R=16 N=24"),
    ),
    Bug::new("dora.cu", "dm is not divided by m", ["sum / m[j]", "sum"], (F32, "T=70 C=40 R=16 N=24")),
];
