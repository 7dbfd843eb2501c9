//! Concatenation of rows by plain loops.

use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `concat`.
pub static SPEC: Spec = Spec {
    name: "concat",
    cases,
    random: |dtype, draw| {
        let widths = (0..1 + draw.below(4)).map(|_| draw.width(700)).collect();
        case(draw.size(40), widths, dtype)
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "T,V1,V2",
        case: |dtype, s| case(s[0], vec![s[1], s[2]], dtype),
        backward: None,
        real: &[&[64, 16008, 16008]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "concat",
        run: |batch| super::concat(batch.cx, &[batch.storage(24, 0)?, batch.storage(10, 1)?]),
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes =
        [(1, vec![1]), (3, vec![5, 17, 2]), (5, vec![64, 8, 24]), (2, vec![16, 7]), (4, vec![0, 300])];
    // Every place of a part among the accesses, and rows of several passes of a block.
    let places = (0..8).map(|first| (3, vec![first, 2064 + first % 3 * 4, 8, 261]));
    sizes.into_iter().chain(places).map(|(t, widths)| case(t, widths, dtype)).collect()
}

fn case(t: usize, widths: Vec<usize>, dtype: DType) -> Case {
    let columns: usize = widths.iter().sum();
    Case {
        name: format!("T={t} V={widths:?}"),
        inputs: widths.iter().map(|&v| Input::storage([t, v]).frozen()).collect(),
        run: Box::new(|cx, x| {
            let parts: Vec<_> = x.iter().map(|&x| x.clone()).collect();
            Ok(vec![super::concat(cx, &parts)?])
        }),
        reference: Box::new(move |x| {
            let mut y = F64Tensor::zeros([t, columns]);
            for row in 0..t {
                let parts = x.iter().flat_map(|x| x.row(row).iter().copied()).collect::<Vec<_>>();
                y.row_mut(row).copy_from_slice(&parts);
            }
            vec![y]
        }),
        compare: Compare::Bits,
        terms: 1,
        cost: Cost { bytes: (2 * t * columns * dtype.size()) as f64, flops: 0.0 },
    }
}
