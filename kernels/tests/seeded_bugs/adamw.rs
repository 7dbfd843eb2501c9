use crate::bug::Bug;
use codelsi_engine::DType::F32;

pub const BUGS: &[Bug] = &[
    Bug::new(
        "adamw.cu",
        "eps inside the root",
        ["(sqrtf(v / h.correction2) + h.eps)", "sqrtf(v / h.correction2 + h.eps)"],
        (F32, "N=40000"),
    ),
    Bug::new("adamw.cu", "the first moment stays biased", ["m / h.correction1", "m"], (F32, "N=17")),
    Bug::new("adamw.cu", "no weight decay", ["p * h.keep", "p"], (F32, "N=17")),
    Bug::new("adamw.cu", "the gradient is not scaled", ["    g *= h.grad_scale;\n", ""], (F32, "N=17")),
    Bug::new(
        "adamw.cu",
        "the second moment of g, not of its square",
        ["(1.0f - h.beta2) * g * g", "(1.0f - h.beta2) * g"],
        (F32, "N=17"),
    ),
    Bug::new(
        "adamw.cu",
        "the last pack is not bounded",
        ["        if (i + N <= n) {\n            float a[N]", "        if (i < n) {\n            float a[N]"],
        (F32, "N=17"),
    )
    .quiet(),
];
