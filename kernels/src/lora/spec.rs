//! Reference and cases of `lora`.

use super::{LoraLinear, Turns, cuda, lora, lora_decode, multi_lora};
use crate::dropout::spec::{KEY, mask, tokens};
use crate::dropout::{Dropout, DropoutRate};
use crate::gemm::spec::{forward, reference as product};
use crate::spec::{Case, Compare, Cost, Draw, F64Tensor, Input, Invariance, RowBatch, RowCall, Shapes, Spec};
use codelsi_engine::{DType, Result, Tensor};

/// The declaration of `lora`.
pub static SPEC: Spec = Spec {
    name: "lora",
    cases,
    random,
    sources: &[
        &cuda::FORWARD,
        &cuda::decode::DECODE,
        &cuda::DX,
        &cuda::S,
        &cuda::DA,
        &cuda::STRIPS,
        &cuda::FOLD,
        &cuda::DROPOUT,
    ],
    shapes: Shapes {
        sizes: "T,C,R,N",
        case: |dtype, s| case(dtype, s[0], s[1], s[2], &[s[3]], 0.05),
        backward: Some(|_, s| Cost {
            bytes: 0.0,
            flops: (2 * s[0] * (s[1] * s[3] + 3 * s[2] * (s[1] + s[3]))) as f64,
        }),
        real: &[&[4096, 5120, 16, 5120]],
    },
    invariance: Invariance::Rows(&[
        RowCall {
            name: "lora",
            run: |batch| {
                let tokens = batch.ints(|t| 1000 + 7 * t)?;
                let dropout = Dropout { rate: DropoutRate::new(0.3)?, key: KEY, tokens, first_channel: 0 };
                let (w, [a, b]) = (batch.weight([24, 40], 0)?, adapter(batch, 1)?);
                let target = LoraLinear { w: &w, a: &a, b: &b, scale: SCALE };
                let x = batch.storage(40, 0)?;
                Ok(lora(batch.cx, &x, &[target], Some(dropout))?.swap_remove(0))
            },
        },
        RowCall {
            name: "lora_by_row",
            run: |batch| {
                let (w, [a, b]) = (batch.weight([24, 40], 0)?, adapter(batch, 3)?);
                let (a, b) = (a.reshape([3, 4, 40]), b.reshape([3, 24, 4]));
                let target = LoraLinear { w: &w, a: &a, b: &b, scale: SCALE };
                let (x, choice) = (batch.storage(40, 0)?, batch.ints(|t| t * 7 % 3)?);
                Ok(multi_lora(batch.cx, &x, &[target], &choice)?.swap_remove(0))
            },
        },
        RowCall {
            name: "lora_decode",
            run: |batch| {
                let (w, [a, b]) = (batch.weight([24, 40], 0)?, adapter(batch, 3)?);
                let (a, b) = (a.reshape([3, 4, 40]), b.reshape([3, 24, 4]));
                let target = LoraLinear { w: &w, a: &a, b: &b, scale: SCALE };
                let (x, choice) = (batch.storage(40, 0)?, batch.ints(|t| t * 7 % 3)?);
                let turns = Turns::new(batch.cx.device());
                Ok(lora_decode(batch.cx, &x, &[target], Some(&choice), &turns)?.swap_remove(0))
            },
        },
    ]),
    bugs: &[super::bugs::BUGS, super::narrow_bugs::BUGS, super::decode_bugs::BUGS],
};

/// Returns A and B of rank 4 for each of `adapters`, stacked.
fn adapter(batch: &RowBatch, adapters: usize) -> Result<[Tensor; 2]> {
    let weight = |rows, columns, site| batch.weight_in(DType::F32, [adapters * rows, columns], site);
    Ok([weight(4, 40, 1)?, weight(24, 4, 2)?])
}

const SCALE: f32 = 2.0;

fn cases(dtype: DType) -> Vec<Case> {
    // (T, C, R, widths of the targets, dropout)
    let mut cases = vec![
        case(dtype, 1, 8, 2, &[4], 0.0),
        case(dtype, 5, 33, 3, &[7, 20, 1], 0.0),
        case(dtype, 37, 70, 16, &[48, 33], 0.05),
        case(dtype, 19, 260, 8, &[64], 0.5),
        case(dtype, 9, 64, 4, &[16], 0.75),
        // Rows that are multiples of 16 bytes; several parts of each narrow sum; R beyond one group of columns.
        case(dtype, 65, 72, 16, &[136, 24, 40], 0.1),
        case(dtype, 7, 520, 20, &[264], 0.0),
        case(dtype, 530, 40, 4, &[16], 0.2),
    ];
    // 13B's widths, too large for differences of the reference.
    cases.push(forward(case(dtype, 130, 5120, 16, &[72], 0.05)));
    // A rank's part of the channels begins anywhere in a block of eight.
    cases.extend((6..14).map(|first| shard_case(dtype, (9, 70), 4, &[12], 0.3, first)));
    cases.push(by_row(dtype, 9, 40, 3, &[7, 16], 3));
    cases.push(by_row(dtype, 70, 264, 16, &[72], 5));
    // Each number of groups of columns in a block of S, of several adapters, on rows of whole and of ragged chunks.
    cases.push(by_row(dtype, 9, 72, 4, &[9, 8, 7], 3));
    cases.extend((1..4).map(|linears| by_row(dtype, 9, 69, 4, &[9, 8, 7][..linears], 3)));
    // Likewise in its tiles of 128 and of 160 rows, which a GPU of few multiprocessors takes.
    for t in [256, 320] {
        cases.extend((1..5).map(|linears| by_row(dtype, t, 520, 4, &[9, 8, 7, 6][..linears], 2)));
    }
    // Every tile on a GPU of few multiprocessors, several along rows and columns, ragged: forward 128x192, 128x256 and
    // dx 128x256, 128x128; forward 64x128, 64x64.
    cases.push(case(dtype, 136, 504, 20, &[376, 72], 0.1));
    cases.push(case(dtype, 130, 376, 4, &[504], 0.0));
    cases.push(case(dtype, 40, 136, 4, &[264, 72], 0.3));
    cases.push(case(dtype, 40, 72, 4, &[192], 0.0));
    // As many linears as share an x, each of another rank, as no test of one rank could tell apart.
    cases.push(case(dtype, 21, 72, 5, &[24, 40, 16, 33], 0.2));
    cases.extend((0..8).map(|r| case(dtype, 9 + r, 64 + r, 1 + r, &[40 + r, 17], 0.2)));
    // Several parts of each narrow sum, of ragged rows.
    cases.push(case(dtype, 530, 41, 17, &[267], 0.2));
    cases.push(case(dtype, 133, 523, 3, &[9], 0.1));
    cases.push(case(dtype, 1040, 24, 4, &[16], 0.0));
    cases.extend([(21, 72, 8, 136), (37, 70, 3, 33), (70, 69, 5, 131), (70, 72, 4, 136)].map(
        |(t, c, r, n)| {
            let plain = case(dtype, t, c, r, &[n], 0.1);
            // The weight's rounding adds to that of the adapters, which are made small beside it.
            let inputs = plain.inputs.into_iter().enumerate().map(|(i, input)| match i {
                2 => Input::f32([n, c]).frozen(),
                3.. => input.scaled(0.2),
                _ => input,
            });
            Case { name: plain.name + " w f32", inputs: inputs.collect(), ..plain }
        },
    ));
    // Each number of groups of columns in a block, with several blocks each way, on rows of whole and of ragged chunks.
    // Their references are long, so gradients are compared at few places, where errors vary.
    if dtype == DType::BF16 {
        let loose =
            |c, r, widths: &[usize]| Case { compare: Compare::Loose, ..case(dtype, 520, c, r, widths, 0.1) };
        for c in [520, 515] {
            cases.extend((1..4).map(|linears| loose(c, 4, &vec![9; linears])));
            cases.push(loose(c, 20, &[9, 8, 7]));
        }
        cases.push(Case { compare: Compare::Loose, ..case(dtype, 256, 520, 4, &[9], 0.1) });
        cases.push(loose(72, 4, &[9, 8, 7, 6]));
    }
    // Runs of rows that are not cut at 512: many strips of dy.
    if dtype == DType::BF16 {
        cases.push(Case { compare: Compare::Loose, ..case(dtype, 1040, 8, 4, &[22_528], 0.1) });
    }
    // As many adapters as rows: in one tile of few rows, in one of more, and over several of many.
    cases.push(by_row(dtype, 16, 72, 4, &[40], 16));
    cases.push(by_row(dtype, 64, 72, 4, &[40, 9], 63));
    cases.push(by_row(dtype, 133, 136, 4, &[260], 130));
    // Linears of different ranks, and none of an adapter in one of the batches.
    let ranks = [(40, 4), (24, 20), (16, 8), (33, 36)];
    cases.push(ranked(dtype, (37, 72), &ranks, 0.1, 0));
    cases.push(ranked_by_row(dtype, (23, 72), &ranks[..3], 5));
    cases.push(ranked_by_row(dtype, (5, 72), &ranks, 0));
    // Each tile of few rows, several parts of S, and blocks of S that take several linears or parts of one.
    let decoded = [
        ((1, 72), &ranks[..]),
        ((16, 1032), &[(96, 16), (48, 16), (48, 16)]),
        ((7, 520), &[(32, 48)]),
        ((20, 584), &[(48, 16), (24, 20)]),
        ((33, 136), &[(264, 8), (72, 4)]),
        ((40, 1032), &[(192, 16), (72, 40)]),
        ((64, 72), &[(32, 4)]),
        ((64, 584), &[(48, 16), (48, 20), (48, 4)]),
        // More rows, and ragged ones, are as `lora` makes them.
        ((65, 72), &[(32, 4)]),
        ((3, 33), &[(20, 3)]),
    ];
    for (size, linears) in decoded {
        cases.push(decode(ranked(dtype, size, linears, 0.0, 0), false));
    }
    cases.push(decode(ranked_by_row(dtype, (16, 520), &ranks[..3], 16), true));
    cases.push(decode(ranked_by_row(dtype, (9, 72), &ranks, 0), true));
    cases.push(decode(ranked_by_row(dtype, (61, 136), &ranks[1..], 7), true));
    cases.push(decode(ranked_by_row(dtype, (40, 72), &[(192, 4)], 3), true));
    cases
}

fn random(dtype: DType, draw: &mut Draw) -> Case {
    let (t, c, r) = (draw.size(200), draw.width(300), draw.size(40));
    let widths: Vec<usize> = (0..1 + draw.below(4)).map(|_| draw.width(200)).collect();
    match draw.below(5) {
        4 => decode(by_row(dtype, t.min(70), c, r.min(9), &widths[..1], draw.size(20)), true),
        0 => by_row(dtype, t, c, r.min(9), &widths[..1], draw.size(20)),
        1 => shard_case(dtype, (t, c), r, &widths, 0.2, draw.below(100)),
        2 => case(dtype, t, c, r, &widths, 0.0),
        _ => case(dtype, t, c, r, &widths, draw.pick(&[0.05, 0.5])),
    }
}

/// Makes a case of one call on targets of the given widths.
pub fn case(dtype: DType, t: usize, c: usize, r: usize, widths: &[usize], p: f32) -> Case {
    let name = format!("T={t} C={c} R={r} N={widths:?} p={p}");
    Case { name, ..shard_case(dtype, (t, c), r, widths, p, 0) }
}

/// Makes a case of a shard of the channels, from `first` on.
fn shard_case(dtype: DType, size: (usize, usize), r: usize, widths: &[usize], p: f32, first: usize) -> Case {
    let linears: Vec<_> = widths.iter().map(|&n| (n, r)).collect();
    let name = format!("T={} C={} from {first} R={r} N={widths:?} p={p}", size.0, size.1);
    Case { name, ..ranked(dtype, size, &linears, p, first) }
}

/// Makes a case of linears of the given widths and ranks, over the channels from `first` on.
fn ranked(dtype: DType, (t, c): (usize, usize), linears: &[(usize, usize)], p: f32, first: usize) -> Case {
    let mut inputs = vec![Input::storage([t, c]), Input::ints(tokens(t))];
    for &(n, r) in linears {
        inputs.push(Input::storage([n, c]).frozen());
        inputs.push(Input::f32([r, c]).scaled(0.5));
        inputs.push(Input::f32([n, r]).scaled(0.5));
    }
    let n: usize = linears.iter().map(|l| l.0).sum();
    let of_adapters: usize = linears.iter().map(|(n, r)| t * r * (c + n)).sum();
    Case {
        name: format!("T={t} C={c} N,R={linears:?} p={p}"),
        inputs,
        run: Box::new(move |cx, x| {
            let (rate, tokens) = (DropoutRate::new(p)?, x[1].clone());
            lora(cx, x[0], &targets(x), Some(Dropout { rate, key: KEY, tokens, first_channel: first }))
        }),
        reference: Box::new(move |x| reference(x, p, first)),
        compare: Compare::Error,
        terms: c.max(t).max(n) + 2 * linears.iter().map(|l| l.1).max().unwrap_or(0) * c,
        cost: Cost {
            bytes: ((t * c + n * c + t * n) * dtype.size()) as f64,
            flops: 2.0 * (t * n * c + of_adapters) as f64,
        },
    }
}

/// Makes a case of rows that each choose one of `adapters`, or none.
fn by_row(dtype: DType, t: usize, c: usize, r: usize, widths: &[usize], adapters: usize) -> Case {
    let linears: Vec<_> = widths.iter().map(|&n| (n, r)).collect();
    let name = format!("T={t} C={c} R={r} N={widths:?} adapters={adapters}");
    Case { name, ..ranked_by_row(dtype, (t, c), &linears, adapters) }
}

/// Makes a case of rows that each choose one of `adapters`, or none; with 0 `adapters` all choose none of one.
fn ranked_by_row(dtype: DType, (t, c): (usize, usize), linears: &[(usize, usize)], adapters: usize) -> Case {
    let choice: Vec<i32> = (0..t).map(|t| (t * 7 % (adapters + 1)) as i32 - 1).collect();
    let mut inputs = vec![Input::storage([t, c]), Input::ints(choice)];
    for &(n, r) in linears {
        inputs.push(Input::storage([n, c]));
        inputs.push(Input::f32([adapters.max(1), r, c]).scaled(0.5).selected());
        inputs.push(Input::f32([adapters.max(1), n, r]).scaled(0.5).selected());
    }
    forward(Case {
        name: format!("T={t} C={c} N,R={linears:?} adapters={adapters}"),
        inputs,
        run: Box::new(|cx, x| multi_lora(cx, x[0], &targets(x), x[1])),
        reference: Box::new(reference_by_row),
        ..ranked(dtype, (t, c), linears, 0.0, 0)
    })
}

/// Makes a case of [`lora_decode`] of one without dropout.
fn decode(case: Case, by_row: bool) -> Case {
    forward(Case {
        name: format!("{} decoded", case.name),
        run: Box::new(move |cx, x| {
            let turns = Turns::new(cx.device());
            // The second call finds the counters as the first left them.
            let call = || lora_decode(cx, x[0], &targets(x), by_row.then_some(x[1]), &turns);
            call().and_then(|_| call())
        }),
        ..case
    })
}

/// Returns the linears of a case's inputs.
fn targets<'a>(x: &[&'a Tensor]) -> Vec<LoraLinear<'a>> {
    x[2..].chunks_exact(3).map(|t| LoraLinear { w: t[0], a: t[1], b: t[2], scale: SCALE }).collect()
}

fn reference_by_row(x: &[F64Tensor]) -> Vec<F64Tensor> {
    let part = |stack: &F64Tensor, g: usize| {
        let ([_, rows, columns], size) =
            (stack.shape[..].try_into().unwrap(), stack.shape[1] * stack.shape[2]);
        F64Tensor { shape: [rows, columns].into(), data: stack.data[g * size..][..size].to_vec() }
    };
    let of_target = |target: &[F64Tensor]| {
        let mut y = product(&x[0], &target[0]);
        for t in (0..y.dims().0).filter(|&t| x[1].data[t] >= 0.0) {
            let [a, b] = [1, 2].map(|i| part(&target[i], x[1].int(t)));
            let row = F64Tensor { shape: [1, x[0].dims().1].into(), data: x[0].row(t).to_vec() };
            let low_rank = product(&product(&row, &a), &b);
            y.row_mut(t).iter_mut().zip(&low_rank.data).for_each(|(y, l)| *y += SCALE as f64 * l);
        }
        y
    };
    x[2..].chunks_exact(3).map(of_target).collect()
}

fn reference(x: &[F64Tensor], p: f32, first: usize) -> Vec<F64Tensor> {
    let (t, c) = x[0].dims();
    let mut dropped = x[0].clone();
    for i in 0..t {
        for j in 0..c {
            dropped.data[i * c + j] *= mask(x[1].int(i), first + j, p);
        }
    }
    x[2..]
        .chunks_exact(3)
        .map(|target| {
            let mut y = product(&x[0], &target[0]);
            let low_rank = product(&product(&dropped, &target[1]), &target[2]);
            y.data.iter_mut().zip(&low_rank.data).for_each(|(y, l)| *y += SCALE as f64 * l);
            y
        })
        .collect()
}
