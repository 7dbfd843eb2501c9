//! Scattered rows by plain loops.

use crate::flash::Heads;
use crate::rope::inverse_frequencies;
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, Shapes, Spec};
use codelsi_engine::{DType, Label};

/// The declaration of `kvstore`.
pub static SPEC: Spec = Spec {
    name: "kvstore",
    cases,
    random: |dtype, draw| match draw.below(2) {
        0 => {
            let kv_heads = 1 + draw.below(9);
            let heads = [kv_heads * (1 + draw.below(3)), kv_heads];
            rotated(heads, draw.size(60), 2 * draw.size(128), dtype)
        }
        _ => {
            let (n, s) = (draw.size(30), draw.size(40));
            case([n, 1 + draw.below(9), s, draw.width(150)], 1 + draw.below((n * s).min(60)), dtype)
        }
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,H,K,D",
        case: |dtype, s| rotated([s[1], s[2]], s[0], s[3], dtype),
        backward: None,
        real: &[&[4096, 40, 40, 128]],
    },
    invariance: Invariance::NotByRow("its output is pages, which hold copies of rows"),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes =
        [([1, 1, 1, 1], 1), ([3, 1, 4, 17], 5), ([3, 5, 4, 4], 7), ([5, 2, 16, 64], 40), ([9, 3, 8, 80], 70)];
    let residues = (0..8).map(|r| case([3, 5, 4, 64 + r], 9, dtype));
    let stores = sizes.into_iter().map(|(pages, t)| case(pages, t, dtype));
    let rotated = [([1, 1], 3, 2), ([3, 3], 2, 12), ([10, 5], 9, 72), ([6, 3], 9, 70), ([40, 40], 2, 128)]
        .map(|(heads, t, d)| rotated(heads, t, d, dtype));
    stores.chain(residues).chain(rotated).collect()
}

/// Makes a case of queries of `h` heads of `d` channels, rotated, and keys of `k` heads, rotated and stored with their
/// values in pages of four tokens.
fn rotated([h, k]: [usize; 2], t: usize, d: usize, dtype: DType) -> Case {
    let pages = t.div_ceil(4) + 1;
    let slots = (0..t).map(|i| (t - 1 - i) as i32).collect();
    let positions = (0..t).map(|t| (t * 211 % 512) as i32).collect();
    Case {
        name: format!("rope H={h} K={k} D={d} T={t}"),
        inputs: vec![
            Input::storage([t, h * d]).frozen(),
            Input::storage([t, k * d]).frozen(),
            Input::storage([t, k * d]).frozen(),
            Input::ints(positions),
            Input::ints(slots),
        ],
        run: Box::new(move |cx, x| {
            let table = crate::rope::cos_sin_table(cx.device(), 512, &inverse_frequencies(d, 1e4), 1.0)?;
            let zeros = || cx.device().zeros(Label::Kv, [pages, k, 4, d], x[0].dtype());
            let (mut k_pages, mut v_pages) = (zeros(), zeros());
            let rows = super::TokenSlots { positions: x[3], rope_table: &table, slots: x[4] };
            let heads = Heads { heads: h, kv_heads: k, head_dim: d };
            let pages = [&mut k_pages, &mut v_pages];
            let y = super::rope_kvstore(cx, pages, [x[0], x[1], x[2]], rows, heads)?;
            Ok(vec![y, k_pages, v_pages])
        }),
        reference: Box::new(move |x| {
            let rotate = |rows| crate::rope::spec::rotate(rows, &x[3], &inverse_frequencies(d, 1e4), 1.0);
            let pages = |rows| scatter(rows, &x[4], [pages, k, 4, d]);
            vec![rotate(&x[0]), pages(&rotate(&x[1])), pages(&x[2])]
        }),
        compare: Compare::Error,
        terms: 2,
        cost: Cost {
            bytes: (2 * t * (h + 2 * k) * d * dtype.size()) as f64,
            flops: (3 * t * (h + k) * d) as f64,
        },
    }
}

/// Returns pages (N, K, S, D) of zeros with every row at its slot.
fn scatter(rows: &F64Tensor, slots: &F64Tensor, [n, k, s, d]: [usize; 4]) -> F64Tensor {
    let mut pages = F64Tensor::zeros([n, k, s, d]);
    for t in 0..slots.data.len() {
        let (page, offset) = (slots.int(t) / s, slots.int(t) % s);
        for (head, channels) in rows.row(t).chunks_exact(d).enumerate() {
            pages.row_mut((page * k + head) * s + offset).copy_from_slice(channels);
        }
    }
    pages
}

/// Makes a case of `t` rows stored in `n` pages of `k` heads, `s` tokens and `d` channels.
fn case([n, k, s, d]: [usize; 4], t: usize, dtype: DType) -> Case {
    let (slots, width) = ((0..t).map(|t| (t * 7 % (n * s)) as i32).collect(), k * d);
    Case {
        name: format!("N={n} K={k} S={s} D={d} T={t}"),
        inputs: vec![Input::storage([t, width]).frozen(), Input::ints(slots)],
        run: Box::new(move |cx, x| {
            let mut pages = cx.device().zeros(Label::Kv, [n, k, s, d], x[0].dtype());
            super::kvstore(cx, &mut pages, x[0], x[1])?;
            Ok(vec![pages])
        }),
        reference: Box::new(move |x| vec![scatter(&x[0], &x[1], [n, k, s, d])]),
        compare: Compare::Bits,
        terms: 1,
        cost: Cost { bytes: (2 * t * width * dtype.size()) as f64, flops: 0.0 },
    }
}
