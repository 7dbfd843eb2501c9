//! Dropout by plain loops.

use super::dropout;
use crate::lora::Dropout;
use crate::spec::{Case, Compare, Cost, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;
use codelsi_engine::rng::RngKey;

/// The declaration of `dropout`.
pub static SPEC: Spec = Spec {
    name: "dropout",
    cases,
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,C",
        case: |dtype, s| case(dtype, s[0], s[1], 0, 0.05),
        backward: Some(|dtype, s| Cost {
            bytes: (2 * s[0] * s[1] * dtype.size()) as f64,
            flops: (s[0] * s[1]) as f64,
        }),
        real: &[&[4096, 5120]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "dropout",
        run: |batch| {
            let tokens = batch.ints(|t| 1000 + 7 * t)?;
            let of_rows = Dropout { p: 0.3, key: KEY, tokens, first_channel: 0 };
            dropout(batch.cx, &batch.storage(40, 0)?, Some(&of_rows))
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

const KEY: RngKey = RngKey { seed: 5, step: 3, site: 9 };

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 4, 0, 0.5), (3, 17, 0, 0.3), (5, 64, 8, 0.1), (9, 8, 6, 0.5), (70, 264, 0, 0.05)];
    sizes.into_iter().map(|(t, c, first, p)| case(dtype, t, c, first, p)).collect()
}

fn case(dtype: DType, t: usize, c: usize, first: usize, p: f32) -> Case {
    Case {
        name: format!("T={t} C={c} from {first} p={p}"),
        inputs: vec![Input::storage([t, c]), Input::ints((0..t as i32).map(|i| 1000 + 7 * i).collect())],
        run: Box::new(move |cx, x| {
            let of_rows = Dropout { p, key: KEY, tokens: x[1].clone(), first_channel: first };
            Ok(vec![dropout(cx, x[0], Some(&of_rows))?])
        }),
        reference: Box::new(move |x| {
            let mut y = x[0].clone();
            for (i, y) in y.data.iter_mut().enumerate() {
                let zero = KEY.uniform(x[1].int(i / c) as u32, (first + i % c) as u32) < p;
                *y *= if zero { 0.0 } else { 1.0 / (1.0 - p as f64) };
            }
            vec![y]
        }),
        compare: Compare::Error,
        terms: 1,
        cost: Cost { bytes: (2 * t * c * dtype.size()) as f64, flops: (t * c) as f64 },
    }
}
