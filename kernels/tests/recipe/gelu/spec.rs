//! GELU by plain float64 arithmetic.

use super::{SOURCE, bugs, gelu};
use crate::spec::{Case, Cost, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `gelu`.
pub static SPEC: Spec = Spec {
    name: "gelu",
    cases: |dtype| [[1, 1], [3, 17], [5, 5120]].map(|size| case(dtype, size)).into(),
    sources: &[&SOURCE],
    shapes: Shapes {
        sizes: "T,C",
        case: |dtype, s| case(dtype, [s[0], s[1]]),
        backward: Some(|dtype, s| Cost::elementwise(dtype, s[0] * s[1], 3, 16)),
        real: &[&[4096, 13824]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "gelu",
        run: |batch| gelu(batch.cx, &batch.storage(40, 0)?),
    }]),
    bugs: &[bugs::BUGS],
};

fn case(dtype: DType, [t, c]: [usize; 2]) -> Case {
    let (name, inputs) = (format!("T={t} C={c}"), vec![Input::storage([t, c]).scaled(2.0)]);
    let elementwise = Case::elementwise(name, dtype, inputs, 9, |cx, x| gelu(cx, x[0]), |x| reference(x[0]));
    Case { terms: 4, ..elementwise }
}

fn reference(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    0.5 * x * (1.0 + u.tanh())
}
