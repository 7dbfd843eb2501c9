//! Divergence from full logits, in float64.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use crate::xent::{IGNORE_INDEX, Targets};
use codelsi_engine::DType;

/// The declaration of `distill`.
pub static SPEC: Spec = Spec {
    name: "distill",
    cases,
    random: |dtype, draw| {
        let (t, c, v) = (draw.size(150), draw.width(80), 1 + draw.size(300));
        if draw.below(2) == 0 { values(t, c, v, dtype) } else { gradient(t, c, v, dtype) }
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C,V",
        case: |dtype, s| gradient(s[0], s[1], s[2], dtype),
        backward: None,
        real: &[&[4096, 5120, 32016]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "distill",
        run: |batch| {
            let targets = Targets::counted(batch.ints(|t| t)?, batch.rows.len());
            let (h, g) = (batch.storage(24, 0)?, batch.storage(24, 1)?);
            Ok(super::distill(batch.cx, &h, &g, &batch.weight([4200, 24], 0)?, &targets, 1.0)?.1)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 2), (3, 17, 5), (7, 33, 41), (16, 128, 64), (3, 5, 4101)];
    let both = sizes.into_iter().flat_map(|(t, c, v)| [values(t, c, v, dtype), gradient(t, c, v, dtype)]);
    // More tokens than the CPU and than a GPU gathers at a time.
    let residues = (0..8).map(|r| gradient(5 + r, 16 + r, 33 + 5 * r, dtype));
    let many = [(300, 3, 7), (1400, 2, 5)].map(|(t, c, v)| gradient(t, c, v, dtype));
    // Of the widest rows there are enough that the errors of their logits are not small by chance.
    let wide = [gradient(5, 20, 50, dtype), gradient(2, 16, 32016, dtype), values(12, 5120, 70, dtype)];
    both.chain(residues).chain(many).chain(wide).collect()
}

/// Makes a case of both outputs, without a gradient.
fn values(t: usize, c: usize, v: usize, dtype: DType) -> Case {
    let label = |t: usize| if t % 4 == 1 { IGNORE_INDEX } else { (t * 7919 % v) as i32 };
    let (scale, labelled) = (1.0 / t as f32, (0..t).filter(|&t| label(t) != IGNORE_INDEX).count());
    Case {
        name: format!("T={t} C={c} V={v}"),
        inputs: vec![
            Input::storage([t, c]).frozen(),
            Input::storage([t, c]).frozen(),
            Input::storage([v, c]).scaled(2.0 / (c as f32).sqrt()).frozen(),
            Input::ints((0..t).map(label).collect()),
        ],
        run: Box::new(move |cx, x| {
            let targets = Targets::counted(x[3].clone(), labelled);
            let (loss, divergences) = super::distill(cx, x[0], x[1], x[2], &targets, scale)?;
            Ok(vec![loss, divergences])
        }),
        reference: Box::new(move |x| reference(&x[0], &x[1], &x[2], &x[3], scale as f64)),
        compare: Compare::Error,
        terms: v.max(c),
        cost: Cost { bytes: ((2 * t + v) * c * dtype.size()) as f64, flops: (4 * t * c * v) as f64 },
    }
}

/// Makes a case of the loss and dh.
fn gradient(t: usize, c: usize, v: usize, dtype: DType) -> Case {
    let Case { name, mut inputs, run, reference, compare, terms, cost } = values(t, c, v, dtype);
    inputs[0].grad = true;
    Case {
        name: name + " dh",
        inputs,
        run: Box::new(move |cx, x| Ok(vec![run(cx, x)?.swap_remove(0)])),
        reference: Box::new(move |x| vec![reference(x).swap_remove(0)]),
        compare,
        terms,
        cost: Cost { flops: 2.5 * cost.flops, ..cost },
    }
}

fn reference(
    h: &F64Tensor,
    g: &F64Tensor,
    head: &F64Tensor,
    targets: &F64Tensor,
    scale: f64,
) -> Vec<F64Tensor> {
    let (mut loss, mut divergences) = (F64Tensor::zeros([1]), F64Tensor::zeros([h.dims().0]));
    for t in 0..h.dims().0 {
        if targets.data[t] == IGNORE_INDEX as f64 {
            continue;
        }
        let (q, p) = (logprobs(h.row(t), head), logprobs(g.row(t), head));
        divergences.data[t] = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        loss.data[0] += scale * divergences.data[t];
    }
    vec![loss, divergences]
}

/// ln softmax(head · x).
fn logprobs(x: &[f64], head: &F64Tensor) -> Vec<f64> {
    let dot = |v: usize| x.iter().zip(head.row(v)).map(|(x, w)| x * w).sum::<f64>();
    let z: Vec<f64> = (0..head.dims().0).map(dot).collect();
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
    let log_total = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    z.iter().map(|z| z - log_total).collect()
}
