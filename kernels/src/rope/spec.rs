//! Rotation by plain loops.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;
use std::sync::Arc;

/// The declaration of `rope`.
pub static SPEC: Spec = Spec {
    name: "rope",
    cases,
    random: |dtype, draw| case(draw.size(60), 1 + draw.below(12), 2 * draw.size(140), dtype),
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,H,D",
        case: |dtype, s| case(s[0], s[1], s[2], dtype),
        backward: Some(|dtype, s| Cost {
            bytes: (2 * s[0] * s[1] * s[2] * dtype.size()) as f64,
            flops: (3 * s[0] * s[1] * s[2]) as f64,
        }),
        real: &[&[4096, 40, 128]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "rope",
        run: |batch| {
            let table =
                super::cos_sin_table(batch.cx.device(), LIMIT, &super::inverse_frequencies(16, THETA), 1.0)?;
            super::rope(batch.cx, &batch.storage(48, 0)?, &batch.ints(|t| t * 7)?, &table, 3)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

const THETA: f64 = 1e4;
const LIMIT: usize = 512;

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 2), (3, 1, 6), (7, 3, 10), (17, 2, 16), (2, 40, 128), (3, 2, 1024), (3, 2, 1022)];
    let residues = (0..8).map(|r| (5 + r, 5, 64 + 2 * r));
    let plain = sizes.into_iter().chain(residues).map(|(t, h, d)| case(t, h, d, dtype));
    plain.chain([scaled(9, 3, 32, dtype)]).collect()
}

/// Makes a case of angles that are not scaled.
fn case(t: usize, h: usize, d: usize, dtype: DType) -> Case {
    with_angles(t, h, super::inverse_frequencies(d, THETA), 1.0, dtype)
}

/// Makes a case as YaRN has it: slow pairs turn at an eighth of their speed, and what is rotated grows.
fn scaled(t: usize, h: usize, d: usize, dtype: DType) -> Case {
    let mut frequencies = super::inverse_frequencies(d, THETA);
    frequencies.iter_mut().skip(d / 4).for_each(|f| *f /= 8.0);
    let case = with_angles(t, h, frequencies, 1.2, dtype);
    Case { name: format!("{} scaled", case.name), ..case }
}

fn with_angles(t: usize, h: usize, frequencies: Vec<f64>, factor: f64, dtype: DType) -> Case {
    let (d, frequencies) = (2 * frequencies.len(), Arc::new(frequencies));
    let of_reference = frequencies.clone();
    // Neither sorted nor distinct, as in packed documents.
    let positions = (0..t).map(|t| ((t * 211 + 3) % LIMIT) as i32).collect();
    Case {
        name: format!("T={t} H={h} D={d}"),
        inputs: vec![Input::storage([t, h * d]), Input::ints(positions)],
        run: Box::new(move |cx, x| {
            let table = super::cos_sin_table(cx.device(), LIMIT, &frequencies, factor)?;
            Ok(vec![super::rope(cx, x[0], x[1], &table, h)?])
        }),
        reference: Box::new(move |x| vec![rotate(&x[0], &x[1], &of_reference, factor)]),
        compare: Compare::Error,
        terms: 2,
        cost: Cost { bytes: (2 * t * h * d * dtype.size()) as f64, flops: (3 * t * h * d) as f64 },
    }
}

/// Rotates every head of x by its token's angles, and multiplies it by `factor`.
pub fn rotate(x: &F64Tensor, positions: &F64Tensor, frequencies: &[f64], factor: f64) -> F64Tensor {
    let (half, mut y) = (frequencies.len(), F64Tensor::zeros(x.shape));
    for t in 0..x.dims().0 {
        for (y, x) in y.row_mut(t).chunks_mut(2 * half).zip(x.row(t).chunks(2 * half)) {
            for (j, frequency) in frequencies.iter().enumerate() {
                let angle = positions.data[t] * frequency;
                y[j] = factor * (x[j] * angle.cos() - x[j + half] * angle.sin());
                y[j + half] = factor * (x[j + half] * angle.cos() + x[j] * angle.sin());
            }
        }
    }
    y
}
