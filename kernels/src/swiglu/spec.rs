//! silu(gate)·up by plain loops.

use crate::spec::{Case, Cost, Input, Shapes, Spec, Value};
use codelsi_engine::DType;

/// The declaration of `swiglu`.
pub static SPEC: Spec = Spec {
    name: "swiglu",
    cases,
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,F",
        case: |dtype, s| case(s[0], s[1], dtype),
        backward: Some(|dtype, s| Cost {
            bytes: (5 * s[0] * s[1] * dtype.size()) as f64,
            flops: (9 * s[0] * s[1]) as f64,
        }),
        real: &[&[4096, 13824]],
    },
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1), (3, 17), (5, 33), (2, 13824)];
    sizes.into_iter().map(|(t, f)| case(t, f, dtype)).collect()
}

fn case(t: usize, f: usize, dtype: DType) -> Case {
    Case {
        name: format!("T={t} F={f}"),
        inputs: vec![Input::storage([t, f]).scaled(3.0), Input::storage([t, f])],
        run: Box::new(|cx, x| Ok(vec![super::swiglu(cx, x[0], x[1])?])),
        reference: Box::new(|x| {
            let pairs = x[0].data.iter().zip(&x[1].data);
            let data = pairs.map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            vec![Value { shape: x[0].shape, data }]
        }),
        terms: 4,
        cost: Cost { bytes: (3 * t * f * dtype.size()) as f64, flops: (4 * t * f) as f64 },
    }
}
