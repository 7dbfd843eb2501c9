//! Reference and cases of `flash_paged`.

use super::{Heads, PagedBatch, arrivals, cuda, flash_paged};
use crate::spec::{Case, Compare, Cost, Draw, F64Tensor, Input, InputContent, Invariance, Shapes, Spec};
use codelsi_engine::DType;
use std::ops::Range;

/// The declaration of `flash_paged`.
pub static SPEC: Spec = Spec {
    name: "flash_paged",
    cases,
    random,
    sources: &[&cuda::DECODE],
    shapes: Shapes {
        sizes: "S,T,H,K,D,page",
        case: |dtype, s| {
            let rows: Vec<_> = (0..s[0]).map(|sequence| (sequence, s[1] - 1..s[1])).collect();
            case(dtype, &rows, s[5], Heads { heads: s[2], kv_heads: s[3], head_dim: s[4] })
        },
        backward: None,
        real: &[&[4, 2048, 40, 40, 128, 16]],
    },
    invariance: Invariance::NotByRow(
        "a row attends to pages of its sequence: flash/tests.rs cuts one in many ways",
    ),
    bugs: &[super::paged_bugs::BUGS],
};

fn cases(dtype: DType) -> Vec<Case> {
    let heads = |heads, kv_heads, head_dim| Heads { heads, kv_heads, head_dim };
    let one = |sequence, position| (sequence, position..position + 1);
    vec![
        // Rows to decode, together with a chunk of a prompt.
        case(dtype, &[one(0, 0), one(2, 17), one(1, 40), (3, 5..12)], 16, heads(4, 2, 8)),
        // Rows to decode alone, on either side of pages and tiles.
        case(dtype, &[one(0, 15), one(1, 16), one(2, 63), one(3, 64)], 16, heads(2, 1, 24)),
        // A run that ends where another sequence continues at the next position.
        case(dtype, &[(0, 5..7), (1, 7..8)], 16, heads(2, 1, 8)),
        case(dtype, &[(0, 0..65)], 32, heads(3, 3, 40)),
        // Chunks that begin anywhere, one over the border of two blocks of rows.
        case(dtype, &[(1, 100..130), (0, 33..35)], 32, heads(2, 2, 72)),
        // One, two and four splits.
        case(dtype, &[one(0, 255), one(1, 256), one(2, 800)], 128, heads(4, 2, 128)),
        case(dtype, &[(0, 249..264)], 256, heads(1, 1, 64)),
        // More query heads to a kv head than a block takes.
        case(dtype, &[one(0, 9)], 16, heads(20, 1, 8)),
        // A sequence twice: one row more than there are places to decode.
        case(dtype, &[one(0, 3), one(0, 20)], 16, heads(1, 1, 8)),
        case(dtype, &[one(0, 20), one(1, 2)], 16, heads(40, 40, 128)),
        // Several splits of several rows and of many heads; one row ends where a split does.
        case(dtype, &[one(0, 300), one(1, 511), one(2, 512), one(3, 9)], 16, heads(10, 2, 64)),
        case(dtype, &[one(0, 1300), one(1, 257)], 64, heads(6, 3, 120)),
        // Prefill of several splits from anywhere, and a chunk from the start.
        case(dtype, &[(0, 500..640), (1, 0..300)], 16, heads(2, 1, 72)),
        case(dtype, &[(0, 250..262), one(1, 600), (2, 511..515)], 128, heads(2, 2, 24)),
        // A chunk of more than a tall tile, from anywhere.
        case(dtype, &[(1, 30..420), one(0, 70)], 64, heads(2, 1, 24)),
        mixed(dtype, 40, heads(4, 2, 32)),
        mixed(dtype, 70, heads(2, 1, 80)),
        // Single rows, more than are decoded in splits, over several warps' worth of rows.
        case(dtype, &(0..70).map(|i| one(i % 3, 2 + 4 * i)).collect::<Vec<_>>(), 16, heads(2, 1, 24)),
    ]
}

/// Makes a case of many sequences: most decode one row, every fifth has a chunk of a prompt, short or long.
fn mixed(dtype: DType, sequences: usize, heads: Heads) -> Case {
    let rows = |s: usize| {
        let first = s * 37 % 300;
        (s, first..first + if s % 5 == 2 { 1 + s * s % 45 } else { 1 })
    };
    case(dtype, &(0..sequences).map(rows).collect::<Vec<_>>(), 16, heads)
}

fn random(dtype: DType, draw: &mut Draw) -> Case {
    let kv_heads = 1 + draw.below(2);
    let heads = Heads { heads: kv_heads * (1 + draw.below(4)), kv_heads, head_dim: 8 * (1 + draw.below(16)) };
    let sequences = draw.size(40);
    let chunks = draw.below(3);
    let rows: Vec<_> = (0..sequences)
        .map(|s| {
            let first = draw.size(400) - 1;
            (s, first..first + if draw.below(4) < chunks { draw.size(150) } else { 1 })
        })
        .collect();
    case(dtype, &rows, 16 << draw.below(4), heads)
}

/// Makes a case of rows of sequences at ranges of positions, over pages in random order.
fn case(dtype: DType, rows: &[(usize, Range<usize>)], page: usize, heads: Heads) -> Case {
    let Heads { heads: h, kv_heads: k, head_dim: d } = heads;
    let sequences = rows.iter().map(|r| r.0 + 1).max().unwrap_or(0);
    let length = |s| rows.iter().filter(|r| r.0 == s).map(|r| r.1.end).max().unwrap_or(0);
    let lengths: Vec<usize> = (0..sequences).map(length).collect();
    let (tables, pages) = tables(&lengths, page);
    let each = || rows.iter().flat_map(|(s, range)| range.clone().map(move |position| (*s, position)));
    let t = each().count();
    let ints = |of: fn((usize, usize)) -> usize| Input::ints(each().map(|row| of(row) as i32).collect());
    let (keys, pairs) = (lengths.iter().sum::<usize>(), each().map(|row| row.1 + 1).sum::<usize>());
    Case {
        name: name(rows, sequences) + &format!(" page={page} H={h} K={k} D={d}"),
        inputs: vec![
            Input::storage([t, h * d]).frozen(),
            Input::storage([pages, k, page, d]).frozen(),
            Input::storage([pages, k, page, d]).frozen(),
            ints(|row| row.0),
            ints(|row| row.1),
            Input {
                shape: [sequences, tables.len() / sequences].into(),
                content: InputContent::Int(tables),
                grad: false,
                selected: false,
            },
        ],
        run: Box::new(move |cx, x| {
            let mut arrivals = arrivals(cx.device(), sequences, heads);
            let rows = PagedBatch { sequences: x[3], positions: x[4], block_tables: x[5] };
            let mut attend = || flash_paged(cx, x[0], [x[1], x[2]], rows, &mut arrivals, heads);
            // Twice, since the first call must leave the counters as it found them.
            attend()?;
            Ok(vec![attend()?])
        }),
        reference: Box::new(move |x| vec![reference(x, heads)]),
        compare: Compare::Error,
        terms: d + keys,
        cost: Cost {
            bytes: (2 * (t * h + keys * k) * d * dtype.size()) as f64,
            flops: (4 * pairs * h * d) as f64,
        },
    }
}

/// Returns the rows by their sequences and positions, or their number where there are many.
fn name(rows: &[(usize, Range<usize>)], sequences: usize) -> String {
    match rows.len() {
        0..10 => format!("rows={rows:?}"),
        _ => format!("{} rows of {sequences} sequences", rows.iter().map(|r| r.1.len()).sum::<usize>()),
    }
}

/// Returns block tables (S, M) of sequences, −1 behind their ends, and the number of pages; one page is unused.
pub(super) fn tables(lengths: &[usize], page: usize) -> (Vec<i32>, usize) {
    let needed: Vec<usize> = lengths.iter().map(|n| n.div_ceil(page)).collect();
    let pages = needed.iter().sum::<usize>() + 1;
    let longest = needed.iter().copied().max().unwrap_or(0);
    let mut free = (0..pages as i32).rev();
    let mut table = |n: usize| -> Vec<i32> {
        (0..longest).map(|i| if i < n { free.next().unwrap_or(-1) } else { -1 }).collect()
    };
    (needed.iter().flat_map(|&n| table(n)).collect(), pages)
}

/// Computes softmax attention over pages by plain loops.
fn reference(x: &[F64Tensor], heads: Heads) -> F64Tensor {
    let page = x[1].shape[2];
    let mut o = F64Tensor::zeros(x[0].shape);
    for t in 0..x[0].dims().0 {
        let table = x[5].row(x[3].int(t));
        let row = |kv_head, j| (table[j / page] as usize * heads.kv_heads + kv_head) * page + j % page;
        let rows = |kv_head| (0..=x[4].int(t)).map(|j| row(kv_head, j)).collect();
        super::spec::attend(o.row_mut(t), x[0].row(t), [&x[1].data, &x[2].data], rows, heads);
    }
    o
}
