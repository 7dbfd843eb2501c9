//! Cross-entropy from full logits, in float64.

use super::{IGNORE_INDEX, Targets};
use crate::rows::RowShard;
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, InputContent, Invariance, RowCall, Shapes, Spec};
use codelsi_engine::DType;

/// The declaration of `xent`.
pub static SPEC: Spec = Spec {
    name: "xent",
    cases,
    random: |dtype, draw| {
        let (t, c, v) = (draw.size(150), draw.width(80), 1 + draw.size(300));
        match draw.below(3) {
            0 => shard_case(draw.below(v), 1 + draw.below(v), (t, c, v), dtype),
            1 => lora(t, c, v, dtype),
            _ => full(t, c, v, dtype),
        }
    },
    sources: &[&super::cuda::SOURCE, &super::cuda::labelled::SOURCE],
    shapes: Shapes {
        sizes: "T,C,V",
        case: |dtype, s| lora(s[0], s[1], s[2], dtype),
        backward: None,
        real: &[&[4096, 5120, 32016]],
    },
    invariance: Invariance::Rows(&[RowCall {
        name: "xent",
        run: |batch| {
            let ids = batch.ints(|t| t * 31 % 4200)?;
            let targets = Targets::counted(ids, batch.rows.len());
            Ok(super::xent(batch.cx, &batch.storage(24, 0)?, &batch.weight([4200, 24], 0)?, &targets, 1.0)?.1)
        },
    }]),
    bugs: &[super::bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(1, 1, 2), (3, 17, 5), (7, 33, 41), (16, 128, 64), (3, 5, 4101)];
    let both = sizes.into_iter().flat_map(|(t, c, v)| [values(t, c, v, dtype), full(t, c, v, dtype)]);
    // More tokens than the CPU and than a GPU gathers at a time.
    let many = [(300, 3, 7), (1400, 2, 5)].map(|(t, c, v)| full(t, c, v, dtype));
    let parts = [0, 30, 44].map(|first| shard_case(first, 20, (7, 33, 64), dtype));
    let residues = (0..8).map(|r| full(5 + r, 16 + r, 33 + 5 * r, dtype));
    // Heads stored otherwise than h, of whole accesses and not; more labelled tokens than a block has threads.
    let stored = [(9, 16, 40), (7, 33, 41)].into_iter().flat_map(|(t, c, v)| {
        [Input::coarse([v, c]), Input::bf16([v, c])].map(|head| with_head(lora(t, c, v, dtype), head))
    });
    let many_of_a_shard = [shard_case(2, 5, (500, 3, 9), dtype)];
    let parts = parts.into_iter().chain(residues).chain(stored).chain(many_of_a_shard);
    // Products of several tiles of the vocabulary, on tensor cores at once and in slices of K.
    let wide = [
        lora(5, 72, 8192, dtype),
        lora(5, 20, 50, dtype),
        lora(2, 16, 32016, dtype),
        values(2, 5120, 70, dtype),
    ];
    both.chain(many).chain(parts).chain(wide).collect()
}

/// Makes a case of both outputs, without gradients.
fn values(t: usize, c: usize, v: usize, dtype: DType) -> Case {
    let label = |t: usize| if t % 4 == 1 { IGNORE_INDEX } else { (t * 7919 % v) as i32 };
    let (scale, labelled) = (1.0 / t as f32, (0..t).filter(|&t| label(t) != IGNORE_INDEX).count());
    Case {
        name: format!("T={t} C={c} V={v}"),
        inputs: vec![
            Input::storage([t, c]).frozen(),
            Input::storage([v, c]).scaled(2.0 / (c as f32).sqrt()).frozen(),
            Input::ints((0..t).map(label).collect()),
        ],
        run: Box::new(move |cx, x| {
            let (loss, logprobs) =
                super::xent(cx, x[0], x[1], &Targets::counted(x[2].clone(), labelled), scale)?;
            Ok(vec![loss, logprobs])
        }),
        reference: Box::new(move |x| reference(&x[0], &x[1], &x[2], scale as f64)),
        compare: Compare::Error,
        terms: v.max(c),
        cost: Cost { bytes: ((t + v) * c * dtype.size()) as f64, flops: (2 * t * c * v) as f64 },
    }
}

/// Makes a case of one rank with a shard of the head: `shard_rows` rows from `first` on, and no other rank.
fn shard_case(first: usize, shard_rows: usize, (t, c, v): (usize, usize, usize), dtype: DType) -> Case {
    let full_case = lora(t, c, v, dtype);
    let mut inputs = full_case.inputs;
    inputs[1] = Input::storage([shard_rows, c]).scaled(2.0 / (c as f32).sqrt()).frozen();
    let scale = 1.0 / t as f32;
    let labelled = (0..t).filter(|t| t % 4 != 1).count();
    Case {
        name: format!("{} {shard_rows} from {first}", full_case.name),
        inputs,
        run: Box::new(move |cx, x| {
            let targets = Targets::counted(x[2].clone(), labelled);
            Ok(vec![
                super::vocab_parallel_xent(cx, x[0], x[1], &targets, scale, RowShard { first, total: v })?.0,
            ])
        }),
        reference: Box::new(move |x| {
            vec![shard_reference(&x[0], &x[1], &x[2], scale as f64, first).swap_remove(0)]
        }),
        ..lora(t, c, shard_rows, dtype)
    }
}

/// Makes a case of the loss and dh, as LoRA needs them: the head is frozen.
fn lora(t: usize, c: usize, v: usize, dtype: DType) -> Case {
    let Case { name, mut inputs, run, reference, compare, terms, cost } = values(t, c, v, dtype);
    inputs[0].grad = true;
    Case {
        name: name + " dh",
        inputs,
        run: Box::new(move |cx, x| Ok(vec![run(cx, x)?.swap_remove(0)])),
        reference: Box::new(move |x| vec![reference(x).swap_remove(0)]),
        compare,
        terms,
        cost: Cost { flops: 2.0 * cost.flops, ..cost },
    }
}

/// Replaces the frozen head.
fn with_head(mut case: Case, head: Input) -> Case {
    let kind = if matches!(head.content, InputContent::Coarse(_)) { "f32" } else { "bf16" };
    case.name += &format!(" head {kind}");
    case.inputs[1] = head.scaled(0.4);
    case
}

/// Makes a case of the loss, dh and dhead, as full fine-tuning needs them.
fn full(t: usize, c: usize, v: usize, dtype: DType) -> Case {
    let mut case = lora(t, c, v, dtype);
    case.name += " dhead";
    case.inputs[1].grad = true;
    case.terms = case.terms.max(t);
    case.cost.flops *= 2.0;
    case
}

fn reference(h: &F64Tensor, head: &F64Tensor, targets: &F64Tensor, scale: f64) -> Vec<F64Tensor> {
    shard_reference(h, head, targets, scale, 0)
}

fn shard_reference(
    h: &F64Tensor,
    head: &F64Tensor,
    targets: &F64Tensor,
    scale: f64,
    first: usize,
) -> Vec<F64Tensor> {
    let (mut loss, mut logprobs) = (F64Tensor::zeros([1]), F64Tensor::zeros([h.dims().0]));
    for t in 0..h.dims().0 {
        if targets.data[t] == IGNORE_INDEX as f64 {
            continue;
        }
        let dot = |v: usize| h.row(t).iter().zip(head.row(v)).map(|(h, w)| h * w).sum::<f64>();
        let z: Vec<f64> = (0..head.dims().0).map(dot).collect();
        let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
        let total: f64 = z.iter().map(|z| (z - max).exp()).sum();
        let logit = targets.int(t).checked_sub(first).and_then(|row| z.get(row)).unwrap_or(&0.0);
        logprobs.data[t] = logit - max - total.ln();
        loss.data[0] -= scale * logprobs.data[t];
    }
    vec![loss, logprobs]
}
