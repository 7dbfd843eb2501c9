//! Sampling by a full sort, in float64.

use super::{RowSamplingParams, sample};
use crate::spec::{Case, Compare, Cost, F64Tensor, Input, Invariance, RowBatch, RowCall, Shapes, Spec};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{DType, Label, Result, Tensor};
use std::collections::BTreeSet;

/// The declaration of `sample`: tokens and log-probabilities of every mix of filters.
pub static SPEC: Spec = Spec {
    name: "sample",
    cases,
    random: |dtype, draw| {
        let rows = if draw.size(3) == 1 { PENALTIES } else { FILTERS };
        case_of(draw.size(30), draw.size(1500), dtype, rows)
    },
    sources: &[&super::cuda::SOURCE],
    shapes: Shapes {
        sizes: "B,V",
        case: |dtype, s| case(s[0], s[1], dtype),
        backward: None,
        real: &[&[64, 32016]],
    },
    invariance: Invariance::Rows(&[RowCall { name: "sample", run: sample_rows }]),
    bugs: &[super::bugs::BUGS],
};

/// Tokens and the bits of their log-probabilities (rows, 2), drawn with params that follow the rows.
fn sample_rows(batch: &RowBatch) -> Result<Tensor> {
    let params = |t: usize| RowSamplingParams {
        temperature: 0.8,
        top_p: if t.is_multiple_of(2) { 0.9 } else { 1.0 },
        key: RngKey { seed: t as u64, step: 3, site: 0 },
        ..RowSamplingParams::default()
    };
    let params: Vec<RowSamplingParams> = batch.rows.clone().map(params).collect();
    let choices = sample(batch.cx, &batch.storage(300, 0)?, &params)?;
    let words: Vec<i32> = choices.iter().flat_map(|c| [c.token, c.logprob.to_bits() as i32]).collect();
    batch.cx.device().tensor(Label::Scratch, [choices.len(), 2], &words)
}

/// Previous tokens of a row over a vocabulary, and its params with them.
#[derive(Clone, Copy)]
struct RowParams {
    previous: fn(usize, usize) -> Vec<i32>,
    params: for<'p> fn(usize, &'p [i32]) -> RowSamplingParams<'p>,
}

/// Rows that differ in their filters. Previous tokens: the lowest ones descending, so that on a GPU one warp penalizes
/// what another reads; 0 twice.
const FILTERS: RowParams =
    RowParams { previous: |_, vocab| (0..vocab.min(70) as i32).rev().chain([0]).collect(), params: filters };

/// Rows that differ in their penalties. Previous tokens: 40 of a prompt and 5,000 generated ones, half of them the same;
/// of a large vocabulary, those that one warp of a GPU marks are others than it counts.
const PENALTIES: RowParams = RowParams {
    previous: |row, vocab| {
        let token = |i: usize| match i {
            ..40 => 3 * i,
            _ if i.is_multiple_of(2) => 5 * row,
            _ => i * i % (7 * vocab.min(1009) / 10).max(1),
        };
        (0..5040).map(|i| (token(i) % vocab) as i32).collect()
    },
    params: penalties,
};

fn penalties(row: usize, previous: &[i32]) -> RowSamplingParams<'_> {
    let base = RowSamplingParams {
        temperature: 0.7,
        key: RngKey { seed: 43, step: 5 + row as u32, site: 1 },
        previous,
        prompt_len: 40,
        ..RowSamplingParams::default()
    };
    match row % 6 {
        0 => RowSamplingParams { temperature: 0.0, frequency_penalty: 0.002, ..base },
        1 => RowSamplingParams { presence_penalty: 1.5, ..base },
        2 => RowSamplingParams {
            repetition_penalty: 1.2,
            frequency_penalty: 0.01,
            presence_penalty: -0.5,
            top_p: 0.9,
            ..base
        },
        3 => RowSamplingParams { temperature: 0.0, presence_penalty: -2.0, ..base },
        4 => RowSamplingParams { frequency_penalty: -0.0015, top_k: 20, ..base },
        _ => RowSamplingParams { frequency_penalty: 2.0, min_p: 0.1, ..base },
    }
}

fn filters(row: usize, previous: &[i32]) -> RowSamplingParams<'_> {
    let base = RowSamplingParams {
        temperature: 0.7,
        key: RngKey { seed: 42 << 40 | 17, step: 70_001 + row as u32, site: 66_001 },
        ..RowSamplingParams::default()
    };
    match row % 6 {
        0 if row % 12 == 6 => {
            RowSamplingParams { repetition_penalty: 1.3, previous, ..RowSamplingParams::default() }
        }
        0 => RowSamplingParams::default(),
        1 => RowSamplingParams { repetition_penalty: 1.3, previous, ..base },
        2 => RowSamplingParams { top_k: 5, ..base },
        3 => RowSamplingParams { top_p: 0.8, ..base },
        4 => RowSamplingParams { min_p: 0.2, ..base },
        _ => RowSamplingParams {
            top_k: 20,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 0.9,
            previous,
            ..base
        },
    }
}

fn cases(dtype: DType) -> Vec<Case> {
    let sizes = [(6, 1), (12, 70), (24, 33), (12, 1030), (6, 32016)];
    let ties = [(12, 1024, 1), (12, 1500, 1), (12, 3300, 3), (12, 2100, 2)];
    let ties = ties.map(|(b, v, levels)| {
        with_logits(case(b, v, dtype), &format!("of {levels} values"), |_, v| (v * 7919 % levels) as f32)
    });
    let excluded = [(12, 1500, 3), (24, 40, 13)].map(|(b, v, every)| {
        with_logits(case(b, v, dtype), &format!("but every {every}th -inf"), |row, v| match v % every {
            1 => (row * 5 + v * 7919 % 101) as f32 / 16.0,
            _ => f32::NEG_INFINITY,
        })
    });
    // A penalty moves the largest from the previous tokens to the others.
    let negative = with_logits(case(12, 100, dtype), "all negative", |row, v| {
        -1.0 - ((v * 7919 + row) % 13) as f32 / 8.0
    });
    // Beyond the keys that a block keeps.
    let last = with_logits(case(6, 32_700, dtype), "the last likeliest", |row, v| match v {
        ..32_000 => -8.0,
        _ => ((row * 5 + v * 7919) % 101) as f32 / 16.0,
    });
    let single = sizes.into_iter().map(|(b, v)| case(b, v, dtype));
    let penalized = [(6, 1), (12, 30), (24, 100), (12, 1500), (6, 32_700)].map(|(b, v)| {
        let case = case_of(b, v, dtype, PENALTIES);
        Case { name: format!("{} penalized", case.name), ..case }
    });
    single.chain(ties).chain(excluded).chain([negative, last]).chain(penalized).collect()
}

/// Makes a case of given logits, of row and token.
fn with_logits(case: Case, what: &str, logit: impl Fn(usize, usize) -> f32) -> Case {
    let (b, v) = case.inputs[0].shape.as_matrix();
    let logits = (0..b * v).map(|i| logit(i / v, i % v)).collect();
    Case { name: format!("{} {what}", case.name), inputs: vec![Input::given([b, v], logits)], ..case }
}

fn case(b: usize, v: usize, dtype: DType) -> Case {
    case_of(b, v, dtype, FILTERS)
}

fn case_of(b: usize, v: usize, dtype: DType, rows: RowParams) -> Case {
    let previous: Vec<Vec<i32>> = (0..b).map(|row| (rows.previous)(row, v)).collect();
    let referenced = previous.clone();
    Case {
        name: format!("B={b} V={v}"),
        inputs: vec![Input::storage([b, v]).scaled(2.0).frozen()],
        run: Box::new(move |cx, x| {
            let params = previous.iter().enumerate().map(|(row, previous)| (rows.params)(row, previous));
            let params: Vec<RowSamplingParams> = params.collect();
            let chosen = sample(cx, x[0], &params)?;
            let tokens: Vec<i32> = chosen.iter().map(|c| c.token).collect();
            let logprobs: Vec<f32> = chosen.iter().map(|c| c.logprob).collect();
            let device = cx.device();
            Ok(vec![
                device.tensor(Label::Activations, [b], &tokens)?,
                device.tensor(Label::Activations, [b], &logprobs)?,
            ])
        }),
        reference: Box::new(move |x| {
            let (mut tokens, mut logprobs) = (F64Tensor::zeros([b]), F64Tensor::zeros([b]));
            for row in 0..b {
                let token = choose(x[0].row(row), &(rows.params)(row, &referenced[row]));
                tokens.data[row] = token as f64;
                logprobs.data[row] = softmax(x[0].row(row))[token].ln();
            }
            vec![tokens, logprobs]
        }),
        compare: Compare::Error,
        terms: v,
        cost: Cost { bytes: (b * v * dtype.size()) as f64, flops: (4 * b * v) as f64 },
    }
}

fn choose(logits: &[f64], params: &RowSamplingParams) -> usize {
    let mut x = logits.to_vec();
    for &id in params.previous {
        let (x, logit, penalty) =
            (&mut x[id as usize], logits[id as usize], params.repetition_penalty as f64);
        *x = if logit > 0.0 { logit / penalty } else { logit * penalty };
    }
    let generated = &params.previous[params.prompt_len..];
    for &id in generated {
        x[id as usize] -= params.frequency_penalty as f64;
    }
    for id in BTreeSet::from_iter(generated) {
        x[*id as usize] -= params.presence_penalty as f64;
    }
    let mut sorted: Vec<usize> = (0..x.len()).collect();
    sorted.sort_by(|&a, &b| x[b].total_cmp(&x[a])); // stable: lower ids first among equals
    if params.temperature == 0.0 {
        return sorted[0];
    }
    x.iter_mut().for_each(|x| *x /= params.temperature as f64);
    let p = softmax(&x);
    if params.top_k > 0 {
        sorted.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        let total: f64 = sorted.iter().map(|&i| p[i]).sum();
        let mass = |n: usize| sorted[..n].iter().map(|&i| p[i]).sum::<f64>();
        let fewest = (1..sorted.len()).find(|&n| mass(n) >= params.top_p as f64 * total);
        sorted.truncate(fewest.unwrap_or(sorted.len()));
    }
    let likeliest = p[sorted[0]];
    sorted.retain(|&i| p[i] >= params.min_p as f64 * likeliest);
    if params.top_k == 0 && params.top_p == 1.0 {
        sorted.sort(); // unfiltered tokens are drawn by id
    }
    let total: f64 = sorted.iter().map(|&i| p[i]).sum();
    let [high, low, ..] = params.key.words(0, 0);
    let u = ((high as u64) << 32 | low as u64) as f64 / 2f64.powi(64);
    let mut mass = 0.0;
    let passed = sorted.iter().find(|&&i| {
        mass += p[i];
        mass > u * total
    });
    *passed.unwrap_or(&sorted[sorted.len() - 1])
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    let total: f64 = x.iter().map(|x| (x - max).exp()).sum();
    x.iter().map(|x| (x - max).exp() / total).collect()
}
