//! DoRA's scaling over the lengths of adapted rows, by plain loops.

use super::{magnify, norms};
use crate::elementwise::cast;
use crate::lora::LoraLinear;
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::{DType, Result, Tensor};

/// The declaration of `dora`.
pub static SPEC: Spec = Spec {
    name: "dora",
    cases,
    random: |dtype, draw| case(dtype, draw.size(150), draw.width(300), draw.size(20), draw.width(200)),
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C,R,N",
        case: |dtype, s| case(dtype, s[0], s[1], s[2], s[3]),
        backward: Some(|dtype, s| Cost {
            bytes: (5 * s[0] * s[3] * dtype.size()) as f64,
            flops: (3 * s[0] * s[3]) as f64,
        }),
        real: &[&[4096, 5120, 16, 5120]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "magnify",
        run: |batch| {
            let lengths = |site| -> Result<Tensor> {
                cast(batch.cx, &batch.weight([1, 40], site)?.reshape([40]), DType::F32)
            };
            magnify(batch.cx, &batch.storage(40, 0)?, &lengths(0)?, &lengths(1)?)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

const SCALE: f32 = 2.0;

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 1, 1), (5, 33, 3, 7), (70, 40, 16, 24), (130, 264, 4, 136), (3, 1100, 8, 18)];
    let residues = (0..8).map(|r| (65 + r, 40 + r, 4 + r, 136 + 5 * r));
    sizes.into_iter().chain(residues).map(|(t, c, r, n)| case(dtype, t, c, r, n)).collect()
}

/// Makes a case of x scaled by m and by the norms of W + s B A.
fn case(dtype: DType, t: usize, c: usize, r: usize, n: usize) -> Case {
    Case {
        name: format!("T={t} C={c} R={r} N={n}"),
        inputs: vec![
            Input::storage([t, n]),
            Input::f32([n]),
            Input::storage([n, c]).frozen(),
            Input::f32([r, c]).scaled(0.5).frozen(),
            Input::f32([n, r]).scaled(0.5).frozen(),
        ],
        run: Box::new(|cx, x| {
            let lengths = norms(cx, &LoraLinear { w: x[2], a: x[3], b: x[4], scale: SCALE })?;
            Ok(vec![magnify(cx, x[0], x[1], &lengths)?])
        }),
        reference: Box::new(reference),
        compare: Compare::Error,
        terms: c.max(t),
        cost: Cost {
            bytes: ((n * c + 2 * t * n) * dtype.size()) as f64,
            flops: (2 * n * r * c + t * n) as f64,
        },
    }
}

fn reference(x: &[F64Tensor]) -> Vec<F64Tensor> {
    let [x, m, w, a, b] = x else { unreachable!("five inputs") };
    let ((n, c), rank) = (w.dims(), a.dims().0);
    let length = |j: usize| {
        let change = |k: usize| (0..rank).map(|r| b.row(j)[r] * a.row(r)[k]).sum::<f64>();
        (0..c).map(|k| (w.row(j)[k] + SCALE as f64 * change(k)).powi(2)).sum::<f64>().sqrt()
    };
    let factors: Vec<f64> = (0..n).map(|j| m.data[j] / length(j)).collect();
    let mut y = x.clone();
    for t in 0..x.dims().0 {
        y.row_mut(t).iter_mut().zip(&factors).for_each(|(y, f)| *y *= f);
    }
    vec![y]
}
