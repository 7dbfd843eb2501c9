//! The bias of a linear by plain loops.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `bias`.
pub static SPEC: Spec = Spec {
    name: "bias",
    cases,
    random: |dtype, draw| {
        let weight = draw.pick(&[Input::storage as fn([usize; 1]) -> Input, Input::f32]);
        case(draw.size(150), draw.width(700), weight, dtype)
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,N",
        case: |dtype, s| case(s[0], s[1], Input::storage, dtype),
        backward: Some(|dtype, s| Cost {
            bytes: (s[0] * s[1] * dtype.size()) as f64,
            flops: (s[0] * s[1]) as f64,
        }),
        real: &[&[4096, 5120]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "bias",
        run: |batch| {
            let b = batch.weight([1, 264], 0)?.reshape([264]);
            super::add_bias(batch.cx, &batch.storage(264, 0)?, &b)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 5), (3, 17), (7, 33), (5, 64), (66, 48), (2, 5120), (70, 137), (9, 2064)];
    let plain = sizes.into_iter().map(|(t, n)| case(t, n, Input::storage, dtype));
    // Full fine-tuning keeps f32 under bf16 activations; a frozen bias stays in bf16 under f32 ones.
    let mixed = [(5, 33), (66, 48), (70, 1160), (9, 137)].into_iter().flat_map(|(t, n)| {
        let trained = case(t, n, Input::f32, dtype);
        let stored = case(t, n, Input::bf16, dtype);
        [named(trained, "b f32"), named(Case { inputs: with_gradient(stored.inputs), ..stored }, "b bf16")]
    });
    plain.chain(mixed).collect()
}

fn named(case: Case, bias: &str) -> Case {
    Case { name: format!("{} {bias}", case.name), ..case }
}

fn with_gradient(inputs: Vec<Input>) -> Vec<Input> {
    inputs.into_iter().map(|input| Input { grad: true, ..input }).collect()
}

fn case(t: usize, n: usize, bias: fn([usize; 1]) -> Input, dtype: DType) -> Case {
    Case {
        name: format!("T={t} N={n}"),
        inputs: vec![Input::storage([t, n]), bias([n])],
        run: Box::new(|cx, x| Ok(vec![super::add_bias(cx, x[0], x[1])?])),
        reference: Box::new(|x| {
            let mut y = F64Tensor::zeros(x[0].shape);
            for t in 0..x[0].dims().0 {
                for ((y, x), b) in y.row_mut(t).iter_mut().zip(x[0].row(t)).zip(&x[1].data) {
                    *y = x + b;
                }
            }
            vec![y]
        }),
        compare: Compare::Error,
        terms: t,
        cost: Cost { bytes: (2 * t * n * dtype.size()) as f64, flops: (t * n) as f64 },
    }
}
