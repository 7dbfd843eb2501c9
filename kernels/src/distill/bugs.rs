//! Bugs that the checks of `distill` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "distill.cu",
        "the divergence of the teacher from the student is computed",
        ["weight * (taught[k][j] - student[k][j])", "weight * (student[k][j] - taught[k][j])"],
        (F32, "T=7 C=33 V=41"),
    ),
    Bug::new(
        "distill.cu",
        "columns beyond a tile count in the gap",
        ["if (column(k) + j < width) gap", "gap"],
        (BF16, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "distill.cu",
        "the maxima are left out of the divergence",
        [" + (s.max - s.teacher_max) + ", " + "],
        (F32, "T=7 C=33 V=41"),
    ),
    Bug::new(
        "distill.cu",
        "the gap of earlier tiles is not brought to the new maximum",
        ["s.gap = s.gap * correction + gap", "s.gap = s.gap + gap"],
        (F32, "T=2 C=16 V=32016 dh"),
    ),
    Bug::new(
        "distill.cu",
        "the student's sum is brought to the teacher's new maximum",
        ["s.total * expf(s.max - largest)", "s.total * correction"],
        (F32, "T=2 C=16 V=32016 dh"),
    ),
    Bug::new(
        "distill.cu",
        "the teacher's probabilities are not normalized",
        ["(taught[k][j] - s.teacher_max) / s.teacher_total", "(taught[k][j] - s.teacher_max)"],
        (BF16, "T=7 C=33 V=41 dh"),
    ),
    Bug::new(
        "distill.cu",
        "the gradient is not scaled",
        ["x[j] *= scale", "x[j] *= 1.0f"],
        (BF16, "T=7 C=33 V=41 dh"),
    ),
    Bug::new(
        "distill.cu",
        "results are written by place, labelled or not",
        ["t = rows[first + i];", "t = first + i;"],
        (F32, "T=7 C=33 V=41 dh"),
    ),
];
