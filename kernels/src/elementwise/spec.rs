//! Sums, activations and casts of a few sizes.

use crate::spec::{Case, Cost, Input, Shapes, Spec, Value};
use codelsi_engine::DType;

/// The declaration of `add`, `relu` and `cast`.
pub static SPEC: Spec = Spec {
    name: "elementwise",
    cases,
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C",
        case: |dtype, s| add(s[0], s[1], dtype),
        backward: None,
        real: &[&[4096, 5120]],
    },
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1), (3, 17), (5, 5120)];
    sizes.into_iter().flat_map(|(t, c)| [add(t, c, dtype), relu(t, c, dtype), cast(t, c, dtype)]).collect()
}

fn add(t: usize, c: usize, dtype: DType) -> Case {
    Case {
        name: format!("add T={t} C={c}"),
        inputs: vec![Input::storage([t, c]), Input::storage([t, c])],
        run: Box::new(|cx, x| Ok(vec![super::add(cx, x[0], x[1])?])),
        reference: Box::new(|x| {
            let data = x[0].data.iter().zip(&x[1].data).map(|(a, b)| a + b).collect();
            vec![Value { shape: x[0].shape, data }]
        }),
        terms: 1,
        cost: Cost { bytes: (3 * t * c * dtype.size()) as f64, flops: (t * c) as f64 },
    }
}

fn relu(t: usize, c: usize, dtype: DType) -> Case {
    Case {
        name: format!("relu T={t} C={c}"),
        inputs: vec![Input::storage([t, c])],
        run: Box::new(|cx, x| Ok(vec![super::relu(cx, x[0])?])),
        reference: Box::new(|x| {
            let data = x[0].data.iter().map(|x| x.max(0.0)).collect();
            vec![Value { shape: x[0].shape, data }]
        }),
        terms: 1,
        cost: Cost { bytes: (2 * t * c * dtype.size()) as f64, flops: (t * c) as f64 },
    }
}

/// To the other type and back: lossless from bf16, one rounding from f32.
fn cast(t: usize, c: usize, dtype: DType) -> Case {
    let other = if dtype == DType::F32 { DType::BF16 } else { DType::F32 };
    Case {
        name: format!("cast T={t} C={c}"),
        inputs: vec![Input::storage([t, c])],
        run: Box::new(move |cx, x| Ok(vec![super::cast(cx, x[0], other)?])),
        reference: Box::new(|x| x.to_vec()),
        terms: 1,
        cost: Cost { bytes: (t * c * (dtype.size() + other.size())) as f64, flops: 0.0 },
    }
}
