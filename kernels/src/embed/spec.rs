//! Table look-up by plain loops.

use crate::rows::RowShard;
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `embed`.
pub static SPEC: Spec = Spec {
    name: "embed",
    cases,
    random: |dtype, draw| {
        let (v, c, t) = (draw.size(80), draw.width(200), draw.size(600));
        let rows = 1 + draw.below(v);
        shard_case((draw.below(v - rows + 1), rows), (v, c, t), dtype, draw.pick(&[DType::F32, DType::BF16]))
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "V,C,T",
        case: |dtype, s| case(s[0], s[1], s[2], dtype, dtype),
        backward: Some(|dtype, s| Cost {
            bytes: ((s[0] + s[2]) * s[1] * dtype.size()) as f64,
            flops: (s[2] * s[1]) as f64,
        }),
        real: &[&[32016, 5120, 4096]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "embed",
        run: |batch| {
            let ids = batch.ints(|t| t * 13 % 50)?;
            super::embed(batch.cx, &batch.weight([50, 24], 0)?, &ids, batch.dtype)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let mut cases = Vec::new();
    // (9, 3, 300): more tokens than a block of a GPU sorts at once.
    for (v, c, t) in [(1, 1, 1), (5, 17, 3), (33, 65, 100), (9, 3, 300), (7, 5120, 2)] {
        for to in [DType::F32, DType::BF16] {
            cases.push(case(v, c, t, dtype, to));
        }
    }
    cases.extend((0..8).map(|r| case(20, 64 + r, 250 + r, dtype, dtype)));
    // Rows of several passes of a block; most tokens share an id.
    cases.push(case(3, 2061, 20, dtype, DType::F32));
    cases.push(case(2, 24, 900, dtype, DType::BF16));
    // A rank's part of the rows, from the first, in the middle and to the last.
    cases.extend([0, 4, 13].map(|first| shard_case((first, 7), (20, 17, 41), dtype, dtype)));
    cases
}

fn case(v: usize, c: usize, t: usize, dtype: DType, to: DType) -> Case {
    Case { name: format!("V={v} C={c} T={t} to {to:?}"), ..shard_case((0, v), (v, c, t), dtype, to) }
}

/// Makes a case of a shard of the table: `rows` of its `v` rows, from `first` on.
fn shard_case(
    (first, rows): (usize, usize),
    (v, c, t): (usize, usize, usize),
    dtype: DType,
    to: DType,
) -> Case {
    // Repeated ids, ids that never occur.
    let ids: Vec<i32> = (0..t).map(|t| (t * t % v) as i32).collect();
    Case {
        name: format!("V={rows} from {first} of {v} C={c} T={t} to {to:?}"),
        inputs: vec![Input::storage([rows, c]), Input::ints(ids)],
        run: Box::new(move |cx, x| {
            Ok(vec![super::vocab_parallel_embed(cx, x[0], x[1], to, RowShard { first, total: v })?])
        }),
        reference: Box::new(move |x| {
            let mut y = F64Tensor::zeros([x[1].data.len(), x[0].dims().1]);
            for t in 0..x[1].data.len() {
                if let Some(row) = x[1].int(t).checked_sub(first).filter(|&row| row < rows) {
                    y.row_mut(t).copy_from_slice(x[0].row(row));
                }
            }
            vec![y]
        }),
        compare: Compare::Bits,
        terms: t,
        cost: Cost { bytes: (t * c * (dtype.size() + to.size())) as f64, flops: 0.0 },
    }
}
