//! Sums, activations and casts of a few sizes.

use crate::spec::{Case, Compare, Cost, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `add`, `relu` and `cast`.
pub static SPEC: Spec = Spec {
    name: "elementwise",
    cases,
    random: |dtype, draw| {
        let (t, c) = (draw.size(40), draw.width(3000));
        draw.pick(&[add, relu, cast])(t, c, dtype)
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C",
        case: |dtype, s| add(s[0], s[1], dtype),
        backward: None,
        real: &[&[4096, 5120]],
    },
    invariance: Invariance::Rows(&[
        RowCall {
            name: "add",
            run: |batch| super::add(batch.cx, &batch.storage(40, 0)?, &batch.storage(40, 1)?),
        },
        RowCall { name: "relu", run: |batch| super::relu(batch.cx, &batch.storage(40, 0)?) },
    ]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1), (3, 17), (7, 701), (5, 5120)];
    sizes.into_iter().flat_map(|(t, c)| [add(t, c, dtype), relu(t, c, dtype), cast(t, c, dtype)]).collect()
}

fn add(t: usize, c: usize, dtype: DType) -> Case {
    let inputs = [Input::storage([t, c]), Input::storage([t, c])];
    let name = format!("add T={t} C={c}");
    Case::elementwise(name, dtype, inputs, 1, |cx, [a, b]| super::add(cx, a, b), |[a, b]| a + b)
}

fn relu(t: usize, c: usize, dtype: DType) -> Case {
    let inputs = [Input::storage([t, c])];
    let name = format!("relu T={t} C={c}");
    Case::elementwise(name, dtype, inputs, 1, |cx, [x]| super::relu(cx, x), |[x]| x.max(0.0))
}

/// Makes a case of a conversion to the other type: lossless from bf16, one rounding from f32.
fn cast(t: usize, c: usize, dtype: DType) -> Case {
    let other = if dtype == DType::F32 { DType::BF16 } else { DType::F32 };
    Case {
        name: format!("cast T={t} C={c}"),
        inputs: vec![Input::storage([t, c])],
        run: Box::new(move |cx, x| Ok(vec![super::cast(cx, x[0], other)?])),
        reference: Box::new(|x| x.to_vec()),
        compare: Compare::Bits,
        terms: 1,
        cost: Cost { bytes: (t * c * (dtype.size() + other.size())) as f64, flops: 0.0 },
    }
}
