//! Bugs that the checks of `gelu` must see.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

#[rustfmt::skip]
pub const BUGS: &[Bug] = &[
    Bug::new("gelu.cu", "the last pack is not bounded", ["if (i + N <= n)", "if (i < n)"], (BF16, "T=3 C=17")).nth(0),
    Bug::new("gelu.cu", "the cube is a square", ["0.044715f * x * x * x", "0.044715f * x * x"], (F32, "T=3 C=17")),
    Bug::new("gelu.cu", "the gate is taken for constant", ["x * slope *", "0.0f * slope *"], (F32, "T=5 C=5120")),
];
