//! Bugs that the checks of `gelu` must see.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

#[rustfmt::skip]
pub const BUGS: &[Bug] = &[
    Bug::new("gelu.cu", "the cube is a square", ["0.044715f * x * x * x", "0.044715f * x * x"], (F32, "T=3 C=17")),
    Bug::new("gelu.cu", "the gate is taken for constant", ["x * slope *", "0.0f * slope *"], (F32, "T=2 C=13824")),
    Bug::new("gelu.cu", "the backward takes x for dy", ["n, dy, x)", "n, x, x)"], (BF16, "T=3 C=17")),
];
