//! Reference and cases of `gemm`.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `gemm`.
pub static SPEC: Spec = Spec {
    name: "gemm",
    cases,
    random: |dtype, draw| match draw.below(5) {
        0 => f32_weight(dtype, (draw.size(150), draw.width(150), draw.width(150))),
        1 => case(dtype, (draw.size(60), draw.width(60), draw.size(2400))),
        2 => {
            let widths: Vec<usize> = (0..2 + draw.below(3)).map(|_| draw.width(200)).collect();
            group(dtype, draw.size(200), &widths, draw.width(150))
        }
        3 => gated(dtype, (draw.size(200), draw.width(200), draw.width(150))),
        _ => case(dtype, (draw.size(300), draw.width(300), draw.width(300))),
    },
    sources: &[
        &super::cuda::GEMM,
        &super::cuda::FFMA,
        &super::cuda::SUM,
        &super::group::GROUP,
        &super::gated::GATED,
    ],
    shapes: Shapes {
        sizes: "T,N,K",
        case: |dtype, s| case(dtype, (s[0], s[1], s[2])),
        backward: Some(|_, s| Cost { bytes: 0.0, flops: 4.0 * (s[0] * s[1] * s[2]) as f64 }),
        real: &[&[4096, 5120, 5120], &[4096, 13824, 5120], &[4096, 5120, 13824], &[1, 5120, 5120]],
    },
    invariance: Invariance::Rows(&[
        RowCall {
            name: "linear",
            run: |batch| super::linear(batch.cx, &batch.storage(1100, 0)?, &batch.weight([96, 1100], 0)?),
        },
        RowCall {
            name: "linears",
            run: |batch| {
                let [w0, w1] = [batch.weight([40, 136], 0)?, batch.weight([72, 136], 1)?];
                Ok(super::linears(batch.cx, &batch.storage(136, 0)?, &[&w0, &w1])?.swap_remove(1))
            },
        },
    ]),
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
    // and 128x128 forward and for each gradient, 128x192 forward.
    let tiles = [(136, 504, 264), (130, 376, 504), (130, 136, 376), (300, 200, 136), (130, 120, 72)];
    // Those of up to 16, 32 and 64 rows: of 48, 64 and 128 columns.
    let few = [(16, 96, 136), (17, 96, 136), (33, 144, 136), (40, 192, 72), (40, 256, 72)];
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
    // Groups: of each number of products, in each tile, with ragged ends; then unaligned ones and one of sliced K.
    let groups: [(usize, &[usize], usize); 11] = [
        (1, &[40, 8, 33], 72),
        (16, &[72, 136], 264),
        (32, &[40, 16, 33], 264),
        (33, &[24, 40, 16, 33], 136),
        (64, &[96, 64], 200),
        (40, &[128, 120], 72),
        (130, &[184, 192], 72),
        (136, &[256, 248], 264),
        (130, &[128, 120, 128], 72),
        (5, &[7, 20, 1], 33),
        (9, &[48, 72], 2104),
    ];
    let groups = groups.map(|(t, widths, k)| group(dtype, t, widths, k));
    // Pairs, likewise.
    let pairs = [
        (1, 40, 72),
        (16, 136, 264),
        (64, 33, 200),
        (20, 48, 72),
        (33, 72, 72),
        (40, 96, 72),
        (40, 120, 72),
        (136, 248, 264),
        (130, 184, 72),
        (130, 64, 72),
        (5, 20, 33),
        (9, 48, 2104),
    ]
    .map(|size| gated(dtype, size));
    let sizes = sizes.into_iter().chain(tiles).chain(few).chain(residues).chain(slices);
    let single = sizes.map(|size| case(dtype, size)).chain(large).chain(masters).chain(stored);
    single.chain(groups).chain(pairs).collect()
}

/// Makes a case of products of the given widths that share x.
fn group(dtype: DType, t: usize, widths: &[usize], k: usize) -> Case {
    let plain = case(dtype, (t, widths.iter().sum(), k));
    let weights = widths.iter().map(|&n| Input::storage([n, k]));
    forward(Case {
        name: format!("T={t} N={widths:?} K={k}"),
        inputs: [Input::storage([t, k])].into_iter().chain(weights).collect(),
        run: Box::new(|cx, x| super::linears(cx, x[0], &x[1..])),
        reference: Box::new(|x| x[1..].iter().map(|w| reference(&x[0], w)).collect()),
        ..plain
    })
}

/// Makes a case of SwiGLU of two products.
fn gated(dtype: DType, (t, n, k): (usize, usize, usize)) -> Case {
    let plain = case(dtype, (t, n, k));
    forward(Case {
        name: format!("T={t} N={n} K={k} gated"),
        inputs: vec![Input::storage([t, k]), Input::storage([n, k]), Input::storage([n, k])],
        run: Box::new(|cx, x| Ok(vec![super::gated_linear(cx, x[0], [x[1], x[2]])?])),
        reference: Box::new(|x| {
            let (mut y, up) = (reference(&x[0], &x[1]), reference(&x[0], &x[2]));
            y.data.iter_mut().zip(&up.data).for_each(|(y, up)| *y *= up / (1.0 + (-*y).exp()));
            vec![y]
        }),
        ..plain
    })
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
