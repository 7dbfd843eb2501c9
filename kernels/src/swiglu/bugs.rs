//! Bugs that the checks of `swiglu` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "swiglu.cu",
        "the last pack is not bounded, forward",
        ["    if (i + N <= n) {", "    if (i < n) {"],
        (BF16, "T=3 F=17"),
    )
    .nth(0),
    Bug::new(
        "swiglu.cu",
        "the last pack is not bounded, backward",
        ["    if (i + N <= n) {", "    if (i < n) {"],
        (F32, "T=3 F=17"),
    )
    .nth(1),
    Bug::new(
        "swiglu.cu",
        "the last element is left out",
        ["for (; i < n; i++) y[i]", "for (; i + 1 < n; i++) y[i]"],
        (BF16, "T=3 F=17"),
    ),
    Bug::new(
        "swiglu.cu",
        "the sigmoid's slope is s instead of 1 - s",
        ["gate * (1.0f - s)", "gate * s"],
        (F32, "T=3 F=17"),
    ),
    Bug::new(
        "swiglu.cu",
        "dup without the gate",
        ["dup = dy * gate * s", "dup = dy * s"],
        (BF16, "T=5 F=33"),
    ),
    Bug::new(
        "swiglu.cu",
        "dgate and dup change places in the last elements",
        [
            "            dgate[i] = put<E>(g);\n            dup[i] = put<E>(u);",
            "            dgate[i] = put<E>(u);\n            dup[i] = put<E>(g);",
        ],
        (BF16, "T=3 F=17"),
    ),
];
