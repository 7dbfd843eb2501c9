//! silu(gate)·up by plain loops.

use super::{bugs, cuda, swiglu};
use crate::spec::{Case, Cost, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `swiglu`.
pub static SPEC: Spec = Spec {
    name: "swiglu",
    cases,
    sources: &[&cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,F",
        case: |dtype, s| case(dtype, s[0], s[1]),
        backward: Some(|dtype, s| Cost::elementwise(dtype, s[0] * s[1], 5, 9)),
        real: &[&[4096, 13824]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "swiglu",
        run: |batch| swiglu(batch.cx, &batch.storage(40, 0)?, &batch.storage(40, 1)?),
    }]),
    bugs: &[bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1), (3, 17), (5, 33), (2, 13824)];
    sizes.into_iter().map(|(t, f)| case(dtype, t, f)).collect()
}

fn case(dtype: DType, t: usize, f: usize) -> Case {
    let inputs = vec![Input::storage([t, f]).scaled(3.0), Input::storage([t, f])];
    let elementwise = Case::elementwise(
        format!("T={t} F={f}"),
        dtype,
        inputs,
        4,
        |cx, x| swiglu(cx, x[0], x[1]),
        |x| x[0] / (1.0 + (-x[0]).exp()) * x[1],
    );
    Case { terms: 4, ..elementwise }
}
