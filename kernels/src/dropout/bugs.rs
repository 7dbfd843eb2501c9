//! Bugs that the checks of `dropout` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "drop.cu",
        "channels count from the part's first",
        ["channel = first + i % C", "channel = i % C"],
        (F32, "T=9 C=8 from 6 p=0.5"),
    ),
    Bug::new(
        "drop.cu",
        "the last channels are not bounded",
        ["    if (i >= i64(T) * C) return;\n", ""],
        (BF16, "T=3 C=17 from 0 p=0.3"),
    ),
    Bug::new(
        "drop.cu",
        "the third and fourth channels take the first two's words",
        ["channel & 2 ? high : low", "low"],
        (BF16, "T=3 C=17 from 0 p=0.3"),
    ),
    Bug::new(
        "drop.cu",
        "what is kept is not scaled up",
        ["v[e] * up", "v[e]"],
        (BF16, "T=70 C=264 from 0 p=0.05"),
    ),
    Bug::new(
        "drop.cu",
        "tokens are known by their place",
        ["tokens[i / C]", "i / C"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
];
