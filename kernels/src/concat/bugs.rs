//! Bugs that the checks of `concat` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "concat.cu",
        "every part begins the row",
        ["columns + first", "columns"],
        (BF16, "T=2 V=[16, 7]"),
    ),
    Bug::new("concat.cu", "one element too many", ["c < width", "c <= width"], (F32, "T=3 V=[5, 17, 2]")),
    Bug::new(
        "concat.cu",
        "rows are as wide as the part",
        ["y += i64(blockIdx.x) * columns", "y += i64(blockIdx.x) * width"],
        (F32, "T=5 V=[64, 8, 24]"),
    ),
];
