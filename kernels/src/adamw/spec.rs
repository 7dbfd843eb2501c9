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
    shapes: Shapes { sizes: "N", case: |_, s| case(s[0], Run::CLIPPED), backward: None, real: &[&[1 << 24]] },
    invariance: Invariance::NotByRow(
        "parameters are updated element by element, and the norm sums all of them",
    ),
    bugs: &[super::bugs::BUGS],
};

/// The steps of a case: the first ones.
const STEPS: &[u32] = &[1, 2, 3];
/// Steps of a long run, on both sides of what 16 bits and what a float count.
const LATE: &[u32] = &[65_535, 65_536, 65_537, 16_777_217];

/// The steps of a case, and the squared norm of its gradients.
#[derive(Clone, Copy)]
struct Run {
    steps: &'static [u32],
    squares: f32,
}

impl Run {
    /// A squared norm of 4, so that gradients are scaled to a norm of 1.
    const CLIPPED: Run = Run { steps: STEPS, squares: 4.0 };

    fn squares(&self, cx: &Ctx) -> Result<Tensor> {
        cx.device().tensor(Label::Scratch, [1], &[self.squares])
    }

    /// The factor of gradients; none where nothing may move.
    fn scale(&self) -> Option<f64> {
        let scale = (1.0 / ((self.squares as f64).sqrt() + 1e-6)).min(1.0);
        self.squares.is_finite().then_some(scale)
    }

    fn name(&self, n: usize) -> String {
        match (self.steps, self.squares) {
            (STEPS, 4.0) => format!("N={n}"),
            (steps, squares) => format!("N={n} steps={steps:?} squares={squares}"),
        }
    }
}

fn hyper(step: u32) -> Hyperparameters {
    let lr = 0.01 / (step % 1000) as f32;
    Hyperparameters { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step, max_norm: 1.0 }
}

fn cases(_: DType) -> Vec<Case> {
    let sizes = || vec![1, 4096, 9000, 3];
    // Norms that are not clipped, and those after which nothing may move.
    let norms =
        [0.25, 0.0, f32::INFINITY, f32::NAN].map(|squares| case(4099, Run { squares, ..Run::CLIPPED }));
    let first = [1, 17, 40_000].into_iter().map(|n| case(n, Run::CLIPPED));
    // Every place of a block's end among four elements.
    let ends = || (4091..4099).collect();
    let many = || (0..70).map(|i| 1 + i * i % 19).collect();
    let together =
        [several(sizes()), norm(sizes()), several(ends()), norm(ends()), several(many()), norm(many())];
    first
        .chain([case(4099, Run { steps: LATE, squares: 4.0 })])
        .chain(norms)
        .chain(together)
        .chain([norm(vec![300 * 4096])])
        .collect()
}

fn random(_: DType, draw: &mut Draw) -> Case {
    let sizes = (0..1 + draw.below(9)).map(|_| draw.size(9000)).collect();
    match draw.below(3) {
        0 => case(draw.size(20_000), Run { squares: draw.pick(&[0.5, 9.0]), ..Run::CLIPPED }),
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
            adamw(cx, &mut params, &hyper(1), &Run::CLIPPED.squares(cx)?)?;
            drop(params);
            Ok(p)
        }),
        reference: Box::new(|x| {
            let (p, g) = x.split_at(x.len() / 2);
            let one = |(p, g): (&F64Tensor, &F64Tensor)| {
                steps(&[p.clone(), g.clone()], Run { steps: &[1], squares: 4.0 }).swap_remove(0)
            };
            p.iter().zip(g).map(one).collect()
        }),
        compare: Compare::Error,
        terms: 1,
        cost: Cost { bytes: (28 * elements) as f64, flops: (14 * elements) as f64 },
    }
}

fn case(n: usize, run: Run) -> Case {
    let gradients = run.steps.iter().map(|_| Input::f32([n]).frozen());
    Case {
        name: run.name(n),
        inputs: [Input::f32([n]).frozen()].into_iter().chain(gradients).collect(),
        run: Box::new(move |cx, x| execute(cx, x, run)),
        reference: Box::new(move |x| steps(x, run)),
        compare: Compare::Error,
        terms: run.steps.len(),
        cost: Cost { bytes: (28 * n * run.steps.len()) as f64, flops: (14 * n * run.steps.len()) as f64 },
    }
}

/// Returns p, m and v after the steps.
fn execute(cx: &Ctx, x: &[&Tensor], run: Run) -> Result<Outs> {
    let zeros = || cx.device().zeros(Label::Moments, *x[0].shape(), DType::F32);
    let (mut p, mut m, mut v) = (x[0].to(cx.device(), Label::Adapters)?, zeros(), zeros());
    for (&step, g) in run.steps.iter().zip(&x[1..]) {
        let param = AdamWParam { p: &mut p, g, m: &mut m, v: &mut v };
        adamw(cx, &mut [param], &hyper(step), &run.squares(cx)?)?;
    }
    Ok(vec![p, m, v])
}

/// Returns p, m and v after a step with each gradient.
fn steps(x: &[F64Tensor], run: Run) -> Vec<F64Tensor> {
    let (mut p, mut m, mut v) = (x[0].clone(), F64Tensor::zeros(x[0].shape), F64Tensor::zeros(x[0].shape));
    let Some(scale) = run.scale() else { return vec![p, m, v] };
    for (&step, g) in run.steps.iter().zip(&x[1..]) {
        let h = hyper(step);
        let [lr, beta1, beta2] = [h.lr, h.beta1, h.beta2].map(f64::from);
        for i in 0..p.data.len() {
            let g = g.data[i] * scale;
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
