//! Scattered rows by plain loops.

use crate::spec::{Case, Cost, Input, Spec, Value};
use codelsi_engine::{DType, Label};

/// The declaration of `kvstore`.
pub static SPEC: Spec = Spec { name: "kvstore", cases, sources: &[] };

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 1, 1), (3, 4, 17, 5), (5, 16, 128, 40)];
    sizes.into_iter().map(|(n, s, width, t)| case(n, s, width, t, dtype)).collect()
}

/// `n` pages of `s` tokens; `t` rows, some to one slot.
fn case(n: usize, s: usize, width: usize, t: usize, dtype: DType) -> Case {
    let slots = (0..t).map(|t| (t * 7 % (n * s)) as i32).collect();
    Case {
        name: format!("N={n} S={s} K·D={width} T={t}"),
        inputs: vec![Input::storage([t, width]).frozen(), Input::ints(slots)],
        run: Box::new(move |cx, x| {
            let mut pages = cx.device().zeros(Label::Kv, [n, s, width], x[0].dtype());
            super::kvstore(cx, &mut pages, x[0], x[1])?;
            Ok(vec![pages])
        }),
        reference: Box::new(move |x| {
            let mut pages = Value::zeros([n, s, width]);
            for t in 0..x[1].data.len() {
                pages.row_mut(x[1].int(t)).copy_from_slice(x[0].row(t));
            }
            vec![pages]
        }),
        terms: 1,
        cost: Cost { bytes: (2 * t * width * dtype.size()) as f64, flops: 0.0 },
    }
}
