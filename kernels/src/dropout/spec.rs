//! Dropout by plain loops.

use super::{Dropout, DropoutRate, dropout};
use crate::spec::{Case, Compare, Cost, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;
use codelsi_engine::rng::RngKey;

/// The declaration of `dropout`.
pub static SPEC: Spec = Spec {
    name: "dropout",
    cases,
    random: |dtype, draw| {
        let first = draw.below(3) * 8 + draw.below(2) * draw.below(8);
        case(dtype, draw.size(80), draw.width(300), first, draw.pick(&[0.05, 0.5, 0.9]))
    },
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
            let of_rows = Dropout { rate: DropoutRate::new(0.3)?, key: KEY, tokens, first_channel: 0 };
            dropout(batch.cx, &batch.storage(40, 0)?, Some(&of_rows))
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

/// The key of masks in cases: numbers that 16 and 32 bits do not hold.
pub const KEY: RngKey = RngKey { seed: 0x0123_4567_89ab_cdef, step: 70_003, site: 66_009 };

/// Returns ids of `t` tokens, not all of which 16 bits hold.
pub fn tokens(t: usize) -> Vec<i32> {
    (0..t as i32).map(|i| 1000 + 70_007 * i).collect()
}

/// The factor of `channel` of `token` under [`KEY`], by the definition.
pub fn mask(token: usize, channel: usize, p: f32) -> f64 {
    let threshold = (65536.0 * p as f64).round();
    match (KEY.halves(token as u32, channel as u32 / 8)[channel % 8] as f64) < threshold {
        true => 0.0,
        false => 65536.0 / (65536.0 - threshold),
    }
}

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 4, 0, 0.5), (3, 17, 0, 0.3), (5, 64, 8, 0.1), (9, 8, 6, 0.5), (70, 264, 0, 0.05)];
    // A rank's part of the channels begins anywhere in a block of eight.
    let parts = (9..16).map(|first| (3, 24, first, 0.4));
    let residues = (0..8).map(|r| (9, 64 + r, 0, 0.3));
    // Ragged rows of several blocks, and channels that 16 bits do not hold.
    let far = [(9, 70, 3, 0.2), (9, 72, 70_000, 0.2), (9, 70, 70_003, 0.2)];
    sizes
        .into_iter()
        .chain(parts)
        .chain(residues)
        .chain(far)
        .map(|(t, c, first, p)| case(dtype, t, c, first, p))
        .collect()
}

fn case(dtype: DType, t: usize, c: usize, first: usize, p: f32) -> Case {
    Case {
        name: format!("T={t} C={c} from {first} p={p}"),
        inputs: vec![Input::storage([t, c]), Input::ints(tokens(t))],
        run: Box::new(move |cx, x| {
            let rate = DropoutRate::new(p)?;
            let of_rows = Dropout { rate, key: KEY, tokens: x[1].clone(), first_channel: first };
            Ok(vec![dropout(cx, x[0], Some(&of_rows))?])
        }),
        reference: Box::new(move |x| {
            let mut y = x[0].clone();
            y.data.iter_mut().enumerate().for_each(|(i, y)| *y *= mask(x[1].int(i / c), first + i % c, p));
            vec![y]
        }),
        compare: Compare::Error,
        terms: 1,
        cost: Cost { bytes: (2 * t * c * dtype.size()) as f64, flops: (t * c) as f64 },
    }
}
