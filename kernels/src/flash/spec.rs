//! Reference and cases of `flash`.

use super::{Heads, cuda, flash};
use crate::spec::{Case, Compare, Cost, Draw, F64Tensor, Input, Invariance, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `flash`.
pub static SPEC: Spec = Spec {
    name: "flash",
    cases,
    random,
    sources: &[&cuda::FORWARD, &cuda::BACKWARD],
    shapes: Shapes {
        sizes: "T,H,K,D",
        case: |dtype, s| case(dtype, &[s[0]], Heads { heads: s[1], kv_heads: s[2], head_dim: s[3] }),
        backward: Some(|_, s| Cost {
            bytes: 0.0,
            flops: 5.0 * (s[0] * (s[0] + 1)) as f64 * (s[1] * s[3]) as f64,
        }),
        real: &[&[4096, 40, 40, 128]],
    },
    invariance: Invariance::NotByRow(
        "a row attends to rows of its document: flash/tests.rs cuts one in many ways",
    ),
    bugs: &[super::bugs::BUGS, super::backward_bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let heads = |heads, kv_heads, head_dim| Heads { heads, kv_heads, head_dim };
    vec![
        // A row that sees one key moves neither q nor k: their gradients are nothing but rounding.
        forward_only(case(dtype, &[1], heads(1, 1, 8))),
        case(dtype, &[7, 1, 5], heads(4, 2, 8)),
        case(dtype, &[70], heads(2, 1, 24)),
        case(dtype, &[33, 65], heads(3, 3, 40)),
        case(dtype, &[1, 63, 7], heads(4, 1, 64)),
        case(dtype, &[64, 2], heads(1, 1, 72)),
        case(dtype, &[130], heads(2, 1, 128)),
        // Two splits.
        case(dtype, &[300, 3], heads(1, 1, 8)),
        // Documents of several splits among short ones, with an end at every residue of a tile's rows of eight.
        case(dtype, &[5, 600, 3, 257, 256, 1], heads(2, 1, 24)),
        case(dtype, &[266, 129, 64], heads(2, 2, 72)),
        case(dtype, &[523], heads(3, 1, 128)),
        case(dtype, &[1, 2, 3, 4, 5, 6, 7, 8, 9], heads(2, 2, 16)),
        // More documents than a warp has lanes.
        case(dtype, &[3; 70], heads(2, 1, 8)),
        forward_only(case(dtype, &[1100], heads(1, 1, 64))),
        forward_only(case(dtype, &[770, 300], heads(1, 1, 128))),
        // By tall tiles where multiprocessors are few: documents that end after one row of a tile, and before its last.
        case(dtype, &[257, 511], heads(2, 1, 40)),
    ]
}

fn random(dtype: DType, draw: &mut Draw) -> Case {
    let documents: Vec<usize> = match draw.below(3) {
        0 => (0..1 + draw.below(2)).map(|_| 255 + draw.size(400)).collect(),
        _ => (0..1 + draw.below(5)).map(|_| draw.size(280)).collect(),
    };
    let kv_heads = 1 + draw.below(2);
    let heads = Heads { heads: kv_heads * (1 + draw.below(3)), kv_heads, head_dim: 8 * (1 + draw.below(16)) };
    // Of documents of one row, q and k have gradients of nothing but rounding.
    match documents.iter().max() {
        Some(2..) => case(dtype, &documents, heads),
        _ => forward_only(case(dtype, &documents, heads)),
    }
}

/// Makes a case of packed documents of the given lengths.
pub fn case(dtype: DType, lengths: &[usize], heads: Heads) -> Case {
    let Heads { heads: h, kv_heads: k, head_dim: d } = heads;
    let t: usize = lengths.iter().sum();
    let starts: Vec<i32> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, &n| {
            *sum += n as i32;
            Some(*sum)
        }))
        .collect();
    let pairs: f64 = lengths.iter().map(|&n| (n * (n + 1) / 2) as f64).sum();
    Case {
        name: format!("T={lengths:?} H={h} K={k} D={d}"),
        inputs: vec![
            Input::storage([t, h * d]),
            Input::storage([t, k * d]),
            Input::storage([t, k * d]),
            Input::ints(starts),
        ],
        run: Box::new(move |cx, x| Ok(vec![flash(cx, x[0], x[1], x[2], x[3], heads)?])),
        reference: Box::new(move |x| vec![reference(x, heads)]),
        compare: Compare::Error,
        terms: d + t,
        cost: Cost {
            bytes: (2 * t * (h + k) * d * dtype.size()) as f64,
            flops: 4.0 * pairs * (h * d) as f64,
        },
    }
}

fn forward_only(case: Case) -> Case {
    Case { inputs: case.inputs.into_iter().map(Input::frozen).collect(), ..case }
}

/// Computes softmax attention by plain loops.
fn reference(x: &[F64Tensor], heads: Heads) -> F64Tensor {
    let mut o = F64Tensor::zeros(x[0].shape);
    for document in x[3].data.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        for t in start..end {
            let rows = |kv_head| (start..=t).map(|j| j * heads.kv_heads + kv_head).collect();
            attend(o.row_mut(t), x[0].row(t), [&x[1].data, &x[2].data], rows, heads);
        }
    }
    o
}

/// Computes o (H·D) of a row of queries over k and v (rows, D), of which a kv head has the given rows.
pub(super) fn attend(
    o: &mut [f64],
    q: &[f64],
    [k, v]: [&[f64]; 2],
    rows: impl Fn(usize) -> Vec<usize>,
    heads: Heads,
) {
    let Heads { heads: h, kv_heads, head_dim: d } = heads;
    for head in 0..h {
        let rows = rows(head / (h / kv_heads));
        let q = &q[head * d..][..d];
        let score = |&j: &usize| {
            let k = &k[j * d..][..d];
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
        };
        let scores: Vec<f64> = rows.iter().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let o = &mut o[head * d..][..d];
        for (&j, w) in rows.iter().zip(&weights) {
            let v = &v[j * d..][..d];
            o.iter_mut().zip(v).for_each(|(o, v)| *o += w / total * v);
        }
    }
}
