//! RMSNorm by plain loops.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `rmsnorm` and `add_rmsnorm`.
pub static SPEC: Spec = Spec {
    name: "rmsnorm",
    cases,
    random: |dtype, draw| {
        let (t, c) = (draw.size(150), draw.width(700));
        draw.pick(&[plain, fused, |t, c, dtype| f32_weight(plain(t, c, dtype))])(t, c, dtype)
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C",
        case: |dtype, s| fused(s[0], s[1], dtype),
        backward: Some(|dtype, s| Cost {
            bytes: (6 * s[0] * s[1] * dtype.size()) as f64,
            flops: (10 * s[0] * s[1]) as f64,
        }),
        real: &[&[4096, 5120]],
    },
    invariance: Invariance::Rows(&[
        RowCall {
            name: "rmsnorm",
            run: |batch| {
                let w = batch.weight([1, 264], 0)?.reshape([264]);
                super::rmsnorm(batch.cx, &batch.storage(264, 0)?, &w, EPS)
            },
        },
        RowCall {
            name: "add_rmsnorm",
            run: |batch| {
                let w = batch.weight([1, 264], 0)?.reshape([264]);
                Ok(super::add_rmsnorm(batch.cx, &batch.storage(264, 0)?, &batch.storage(264, 1)?, &w, EPS)?.1)
            },
        },
    ]),
    bugs: &[super::bugs::BUGS],
};

const EPS: f32 = 1e-5;

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 5), (3, 17), (7, 33), (5, 64), (66, 48), (2, 5120), (70, 137), (70, 1160), (3, 2040)];
    let residues = (0..8).map(|r| (66 + r, 256 + r));
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .chain(residues)
        .flat_map(|(t, c)| [plain(t, c, dtype), fused(t, c, dtype)])
        .collect();
    for (t, c) in [(4, 40), (5, 33), (70, 1160), (70, 257)] {
        cases.extend([plain, fused].map(|make| f32_weight(make(t, c, dtype))));
        cases.extend([plain, fused].map(|make| bf16_weight(make(t, c, dtype))));
    }
    cases.push(sum_only(dtype));
    cases
}

fn plain(t: usize, c: usize, dtype: DType) -> Case {
    Case {
        name: format!("T={t} C={c}"),
        inputs: vec![Input::storage([t, c]), Input::storage([c])],
        run: Box::new(|cx, x| Ok(vec![super::rmsnorm(cx, x[0], x[1], EPS)?])),
        reference: Box::new(|x| vec![normalize(&x[0], &x[1])]),
        compare: Compare::Error,
        terms: c.max(t),
        cost: Cost { bytes: (2 * t * c * dtype.size()) as f64, flops: (4 * t * c) as f64 },
    }
}

/// Makes a case of f32 master weights under bf16 activations, as in full fine-tuning.
fn f32_weight(case: Case) -> Case {
    with_weight(case, " w f32", Input::f32)
}

/// Makes a case of frozen bf16 weights, which f32 activations may have too.
fn bf16_weight(case: Case) -> Case {
    with_weight(case, " w bf16", Input::bf16)
}

/// Replaces the weight, the last input.
fn with_weight(mut case: Case, name: &str, weight: fn([usize; 1]) -> Input) -> Case {
    case.name += name;
    let last = case.inputs.pop().map_or(0, |w| w.shape[0]);
    case.inputs.push(weight([last]));
    case
}

fn fused(t: usize, c: usize, dtype: DType) -> Case {
    Case {
        name: format!("add T={t} C={c}"),
        inputs: vec![Input::storage([t, c]), Input::storage([t, c]), Input::storage([c])],
        run: Box::new(|cx, x| {
            let (sum, y) = super::add_rmsnorm(cx, x[0], x[1], x[2], EPS)?;
            Ok(vec![sum, y])
        }),
        reference: Box::new(|x| {
            let sum = add(&x[0], &x[1]);
            let y = normalize(&sum, &x[2]);
            vec![sum, y]
        }),
        compare: Compare::Error,
        terms: c.max(t),
        cost: Cost { bytes: (4 * t * c * dtype.size()) as f64, flops: (5 * t * c) as f64 },
    }
}

/// Makes a case in which the norm is unused: the gradient of the sum passes through.
fn sum_only(dtype: DType) -> Case {
    Case {
        name: "add T=3 C=5, sum plain used".into(),
        inputs: vec![Input::storage([3, 5]), Input::storage([3, 5]), Input::storage([5]).frozen()],
        run: Box::new(|cx, x| Ok(vec![super::add_rmsnorm(cx, x[0], x[1], x[2], EPS)?.0])),
        reference: Box::new(|x| vec![add(&x[0], &x[1])]),
        ..fused(3, 5, dtype)
    }
}

fn add(a: &F64Tensor, b: &F64Tensor) -> F64Tensor {
    F64Tensor { shape: a.shape, data: a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect() }
}

fn normalize(x: &F64Tensor, w: &F64Tensor) -> F64Tensor {
    let (rows, columns) = x.dims();
    let mut y = F64Tensor::zeros(x.shape);
    for t in 0..rows {
        let mean = x.row(t).iter().map(|x| x * x).sum::<f64>() / columns as f64;
        let r = 1.0 / (mean + EPS as f64).sqrt();
        for ((y, x), w) in y.row_mut(t).iter_mut().zip(x.row(t)).zip(&w.data) {
            *y = x * r * w;
        }
    }
    y
}
