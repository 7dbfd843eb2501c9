//! Three steps from zero moments, one step of many tensors, and the squared norm, in float64.

use super::{AdamWParam, Hyperparameters, adamw, sum_of_squares};
use crate::spec::{Case, Compare, Cost, Draw, F64Tensor, Input, Invariance, Shapes, Spec};
use codelsi_engine::{Ctx, DType, Label, Outs, Result, Tensor};

/// The declaration of `adamw`.
pub static SPEC: Spec = Spec {
    name: "adamw",
    cases,
    random,
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes { sizes: "N", case: |_, s| case(s[0], STEPS), backward: None, real: &[&[1 << 24]] },
    invariance: Invariance::NotByRow(
        "parameters are updated element by element, and the norm sums all of them",
    ),
    bugs: &[super::bugs::BUGS],
};

/// The steps of a case: the first ones.
const STEPS: &[u32] = &[1, 2, 3];
/// Steps of a long run, on both sides of what 16 bits and what a float count.
const LATE: &[u32] = &[65_535, 65_536, 65_537, 16_777_217];

/// A squared norm of 4: gradients are scaled by [`SCALE`] to a norm of 1.
fn squares(cx: &Ctx) -> Result<Tensor> {
    cx.device().tensor(Label::Scratch, [1], &[4.0f32])
}

const SCALE: f64 = 1.0 / (2.0 + 1e-6);

fn hyper(step: u32) -> Hyperparameters {
    let lr = 0.01 / (step % 1000) as f32;
    Hyperparameters { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step, max_norm: 1.0 }
}

fn cases(_: DType) -> Vec<Case> {
    let sizes = || vec![1, 4096, 9000, 3];
    let first = [1, 17, 40_000].into_iter().map(|n| case(n, STEPS));
    // Every place of a block's end among four elements.
    let ends = || (4091..4099).collect();
    let many = || (0..70).map(|i| 1 + i * i % 19).collect();
    let together =
        [several(sizes()), norm(sizes()), several(ends()), norm(ends()), several(many()), norm(many())];
    first.chain([case(4099, LATE)]).chain(together).chain([norm(vec![300 * 4096])]).collect()
}

fn random(_: DType, draw: &mut Draw) -> Case {
    let sizes = (0..1 + draw.below(9)).map(|_| draw.size(9000)).collect();
    match draw.below(3) {
        0 => case(draw.size(20_000), STEPS),
        1 => several(sizes),
        _ => norm(sizes),
    }
}

/// Makes a case of the norm of gradients of these sizes.
fn norm(sizes: Vec<usize>) -> Case {
    let elements: usize = sizes.iter().sum();
    Case {
        name: format!("norm of N={sizes:?}"),
        inputs: sizes.iter().map(|&n| Input::f32([n]).frozen()).collect(),
        run: Box::new(|cx, x| Ok(vec![sum_of_squares(cx, x.iter().copied())?])),
        reference: Box::new(|x| {
            let squares: f64 = x.iter().flat_map(|g| &g.data).map(|g| g * g).sum();
            vec![F64Tensor { shape: [1].into(), data: vec![squares] }]
        }),
        compare: Compare::Error,
        terms: 1,
        cost: Cost { bytes: (4 * elements) as f64, flops: (2 * elements) as f64 },
    }
}

/// Makes a case of one step of parameters of these sizes at once: p of each, then g of each.
fn several(sizes: Vec<usize>) -> Case {
    let all = || sizes.iter().map(|&n| Input::f32([n]).frozen());
    let elements: usize = sizes.iter().sum();
    Case {
        name: format!("N={sizes:?}"),
        inputs: all().chain(all()).collect(),
        run: Box::new(|cx, x| {
            let (p, g) = x.split_at(x.len() / 2);
            let mut p: Vec<Tensor> =
                p.iter().map(|p| p.to(cx.device(), Label::Adapters)).collect::<Result<_>>()?;
            let zeros = |g: &&Tensor| cx.device().zeros(Label::Moments, *g.shape(), DType::F32);
            let (mut m, mut v): (Vec<_>, Vec<_>) = g.iter().map(|g| (zeros(g), zeros(g))).unzip();
            let moments = m.iter_mut().zip(&mut v);
            let mut params: Vec<AdamWParam> =
                p.iter_mut().zip(g).zip(moments).map(|((p, g), (m, v))| AdamWParam { p, g, m, v }).collect();
            adamw(cx, &mut params, &hyper(1), &squares(cx)?)?;
            drop(params);
            Ok(p)
        }),
        reference: Box::new(|x| {
            let (p, g) = x.split_at(x.len() / 2);
            let one = |(p, g): (&F64Tensor, &F64Tensor)| steps(&[p.clone(), g.clone()], &[1]).swap_remove(0);
            p.iter().zip(g).map(one).collect()
        }),
        compare: Compare::Error,
        terms: 1,
        cost: Cost { bytes: (28 * elements) as f64, flops: (14 * elements) as f64 },
    }
}

fn case(n: usize, at: &'static [u32]) -> Case {
    let gradients = at.iter().map(|_| Input::f32([n]).frozen());
    Case {
        name: if at == STEPS { format!("N={n}") } else { format!("N={n} steps={at:?}") },
        inputs: [Input::f32([n]).frozen()].into_iter().chain(gradients).collect(),
        run: Box::new(|cx, x| run(cx, x, at)),
        reference: Box::new(|x| steps(x, at)),
        compare: Compare::Error,
        terms: at.len(),
        cost: Cost { bytes: (28 * n * at.len()) as f64, flops: (14 * n * at.len()) as f64 },
    }
}

/// Returns p, m and v after the steps.
fn run(cx: &Ctx, x: &[&Tensor], at: &[u32]) -> Result<Outs> {
    let zeros = || cx.device().zeros(Label::Moments, *x[0].shape(), DType::F32);
    let (mut p, mut m, mut v) = (x[0].to(cx.device(), Label::Adapters)?, zeros(), zeros());
    for (&step, g) in at.iter().zip(&x[1..]) {
        let param = AdamWParam { p: &mut p, g, m: &mut m, v: &mut v };
        adamw(cx, &mut [param], &hyper(step), &squares(cx)?)?;
    }
    Ok(vec![p, m, v])
}

/// Returns p, m and v after a step with each gradient.
fn steps(x: &[F64Tensor], at: &[u32]) -> Vec<F64Tensor> {
    let (mut p, mut m, mut v) = (x[0].clone(), F64Tensor::zeros(x[0].shape), F64Tensor::zeros(x[0].shape));
    for (&step, g) in at.iter().zip(&x[1..]) {
        let h = hyper(step);
        let [lr, beta1, beta2] = [h.lr, h.beta1, h.beta2].map(f64::from);
        for i in 0..p.data.len() {
            let g = g.data[i] * SCALE;
            let (m, v) = (&mut m.data[i], &mut v.data[i]);
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let (m, v) = (*m / (1.0 - beta1.powi(step as i32)), *v / (1.0 - beta2.powi(step as i32)));
            p.data[i] *= 1.0 - lr * h.weight_decay as f64;
            p.data[i] -= lr * m / (v.sqrt() + h.eps as f64);
        }
    }
    vec![p, m, v]
}
