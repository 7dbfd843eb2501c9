//! Reference and cases of `gemm`.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `gemm`.
pub static SPEC: Spec = Spec {
    name: "gemm",
    cases,
    random: |dtype, draw| match draw.below(3) {
        0 => f32_weight(dtype, (draw.size(150), draw.width(150), draw.width(150))),
        1 => case(dtype, (draw.size(60), draw.width(60), draw.size(2400))),
        _ => case(dtype, (draw.size(300), draw.width(300), draw.width(300))),
    },
    sources: &[&super::cuda::GEMM, &super::cuda::FFMA, &super::cuda::SUM],
    shapes: Shapes {
        sizes: "T,N,K",
        case: |dtype, s| case(dtype, (s[0], s[1], s[2])),
        backward: Some(|_, s| Cost { bytes: 0.0, flops: 4.0 * (s[0] * s[1] * s[2]) as f64 }),
        real: &[&[4096, 5120, 5120], &[4096, 13824, 5120], &[4096, 5120, 13824], &[1, 5120, 5120]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "linear",
        run: |batch| super::linear(batch.cx, &batch.storage(1100, 0)?, &batch.weight([96, 1100], 0)?),
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    // (T, N, K): tiny, ragged in every dimension, more than one chunk and block, a decode row; then whole chunks of 16
    // bytes, whose copies take other paths on a GPU, a product so narrow that K is cut there, and 13B's K and N.
    let sizes = [
        (1, 1, 1),
        (3, 5, 7),
        (13, 33, 17),
        (12, 32, 256),
        (29, 70, 515),
        (300, 65, 40),
        (1, 515, 1027),
        (7, 24, 8),
        (33, 35, 72),
        (65, 136, 24),
        (9, 48, 2104),
        (1, 72, 5120),
        (2, 5120, 24),
    ];
    // Too large for differences of the reference: forward alone.
    let large = [(130, 136, 5120), (3, 72, 13824)].into_iter().map(|size| forward(case(dtype, size)));
    // Every tile on a GPU of few multiprocessors, several along rows and columns, with ragged ends of both and of K: 128x256
    // and 128x128 forward and for each gradient.
    let tiles = [(136, 504, 264), (130, 376, 504), (130, 136, 376), (300, 200, 136)];
    let residues = (0..8).flat_map(|n| [0, 3, 5, 7].map(|k| (3 + n, 64 + n, 72 + (5 * n + k) % 8)));
    // Sums cut into slices, ragged, of each form: more than 1024 rows of W, and of x.
    let slices = [(9, 47, 2105), (3, 1101, 41), (1032, 8, 24), (1030, 9, 17), (66, 24, 1100)];
    let masters = [
        (20, 40, 64),
        (13, 33, 17),
        (70, 72, 136),
        (70, 71, 133),
        (9, 48, 1104),
        (9, 47, 1101),
        (3, 1104, 40),
        (3, 1101, 41),
    ]
    .map(|size| f32_weight(dtype, size));
    let stored =
        [(20, 40, 64), (13, 33, 17), (130, 136, 144), (129, 135, 133)].map(|size| bf16_weight(dtype, size));
    let sizes = sizes.into_iter().chain(tiles).chain(residues).chain(slices);
    sizes.map(|size| case(dtype, size)).chain(large).chain(masters).chain(stored).collect()
}

/// Makes a case of bf16 weights, which f32 activations may have too.
fn bf16_weight(dtype: DType, (t, n, k): (usize, usize, usize)) -> Case {
    let plain = case(dtype, (t, n, k));
    let inputs = vec![Input::storage([t, k]), Input { grad: true, ..Input::bf16([n, k]) }];
    Case { name: plain.name.clone() + " w bf16", inputs, ..plain }
}

/// Makes a case of f32 master weights under bf16 activations, as in full fine-tuning.
fn f32_weight(dtype: DType, (t, n, k): (usize, usize, usize)) -> Case {
    let plain = case(dtype, (t, n, k));
    let inputs = vec![Input::storage([t, k]), Input::f32([n, k])];
    Case { name: plain.name.clone() + " w f32", inputs, ..plain }
}

/// Removes the case's gradients.
pub(crate) fn forward(case: Case) -> Case {
    Case { inputs: case.inputs.into_iter().map(Input::frozen).collect(), ..case }
}

/// Makes a case of one product.
pub fn case(dtype: DType, (t, n, k): (usize, usize, usize)) -> Case {
    Case {
        name: format!("T={t} N={n} K={k}"),
        inputs: vec![Input::storage([t, k]), Input::storage([n, k])],
        run: Box::new(|cx, x| Ok(vec![super::linear(cx, x[0], x[1])?])),
        reference: Box::new(|x| vec![reference(&x[0], &x[1])]),
        compare: Compare::Error,
        terms: k.max(t).max(n),
        cost: Cost {
            bytes: ((t * k + n * k + t * n) * dtype.size()) as f64,
            flops: 2.0 * (t * n * k) as f64,
        },
    }
}

/// Computes x Wᵀ by plain loops.
pub fn reference(x: &F64Tensor, w: &F64Tensor) -> F64Tensor {
    let ((t, _), (n, _)) = (x.dims(), w.dims());
    let mut y = F64Tensor::zeros([t, n]);
    for i in 0..t {
        for j in 0..n {
            y.data[i * n + j] = x.row(i).iter().zip(w.row(j)).map(|(x, w)| x * w).sum();
        }
    }
    y
}
