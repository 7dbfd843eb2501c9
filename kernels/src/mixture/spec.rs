//! The gate by plain loops.

use super::gate;
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `mixture`.
pub static SPEC: Spec = Spec {
    name: "mixture",
    cases,
    random: |dtype, draw| case(dtype, draw.size(100), draw.size(40), draw.size(40)),
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,E,R",
        case: |dtype, s| case(dtype, s[0], s[1], s[2]),
        backward: Some(|dtype, s| Cost {
            bytes: (s[0] * s[1] * (3 * s[2] + 2) * dtype.size()) as f64,
            flops: (5 * s[0] * s[1] * s[2]) as f64,
        }),
        real: &[&[4096, 4, 16]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "gate",
        run: |batch| gate(batch.cx, &batch.storage(60, 0)?, &batch.storage(3, 1)?, SCALE),
    }]),
    bugs: &[super::bugs::BUGS],
};

const SCALE: f32 = 2.0;

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 1), (3, 2, 5), (5, 4, 16), (9, 3, 40), (70, 35, 2), (6, 67, 33)];
    let residues = (0..8).map(|r| (8 + r, 3 + r, 8 + 5 * r));
    sizes.into_iter().chain(residues).map(|(t, e, r)| case(dtype, t, e, r)).collect()
}

fn case(dtype: DType, t: usize, experts: usize, r: usize) -> Case {
    Case {
        name: format!("T={t} E={experts} R={r}"),
        inputs: vec![Input::storage([t, experts * r]), Input::storage([t, experts])],
        run: Box::new(|cx, x| Ok(vec![gate(cx, x[0], x[1], SCALE)?])),
        reference: Box::new(reference),
        compare: Compare::Error,
        terms: r.max(experts),
        cost: Cost {
            bytes: (t * experts * (2 * r + 1) * dtype.size()) as f64,
            flops: (2 * t * experts * r) as f64,
        },
    }
}

fn reference(x: &[F64Tensor]) -> Vec<F64Tensor> {
    let [s, logits] = x else { unreachable!("two inputs") };
    let mut u = s.clone();
    for t in 0..s.dims().0 {
        let weights: Vec<f64> = logits.row(t).iter().map(|l| l.exp()).collect();
        let total: f64 = weights.iter().sum();
        let rank = s.dims().1 / weights.len();
        for (i, u) in u.row_mut(t).iter_mut().enumerate() {
            *u *= SCALE as f64 * weights[i / rank] / total;
        }
    }
    vec![u]
}
