//! Bugs that the checks of `xent` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const TILES: (DType, &str) = (F32, "T=2 C=16 V=32016 dh");
const MANY: (DType, &str) = (F32, "T=1400 C=2 V=5 dh dhead");

pub const BUGS: &[Bug] = &[
    Bug::new(
        "xent.cu",
        "a target in an earlier tile is taken for one of this",
        ["if (target >= 0 && target < width) s.logit", "if (target < width) s.logit"],
        (F32, "T=3 C=5 V=4101"),
    ),
    Bug::new(
        "xent.cu",
        "the gradient is not normalized",
        ["scale * (x[j] * correction / s.total - w[j])", "scale * (x[j] * correction - w[j])"],
        (BF16, "T=7 C=33 V=41 dh dhead"),
    ),
    Bug::new(
        "xent.cu",
        "the log-probability without the maximum",
        ["s.logit - s.max - logf(s.total)", "s.logit - logf(s.total)"],
        (F32, "T=7 C=33 V=41"),
    ),
    Bug::new(
        "xent.cu",
        "the target's gradient is not scaled",
        ["tile[k][j] -= scale", "tile[k][j] -= 1.0f"],
        (F32, "T=7 C=33 V=41 dh dhead"),
    ),
    Bug::new(
        "labelled.cu",
        "no barrier after the warps' counts are stored",
        ["__popc(votes);\n        __syncthreads();\n", "__popc(votes);\n"],
        (BF16, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "labelled.cu",
        "no barrier in the tree that sums the loss",
        [
            "        __syncthreads();\n        if (threadIdx.x < width) sums",
            "        if (threadIdx.x < width) sums",
        ],
        (F32, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "labelled.cu",
        "one thread too many in the tree that sums the loss",
        ["if (threadIdx.x < width) sums", "if (threadIdx.x <= width) sums"],
        (F32, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "logit_tile.cuh",
        "columns beyond a tile count as logits of 0",
        ["row[column(p) + i] : fill", "row[column(p) + i] : 0.0f"],
        (BF16, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "logit_tile.cuh",
        "a row of p is stored one element too far",
        ["if (column(k) + i < width) row", "if (column(k) + i <= width) row"],
        (BF16, "T=7 C=33 V=41 dh dhead"),
    ),
    Bug::new(
        "labelled.cu",
        "rows are gathered by place, labelled or not",
        ["t = rows[first + i];\n    for", "t = first + i;\n    for"],
        (F32, "T=7 C=33 V=41"),
    ),
    Bug::new(
        "labelled.cu",
        "the gradient of tokens without a label is not written",
        ["if (!dh) return;\n    float zero", "return;\n    float zero"],
        (BF16, "T=7 C=33 V=41 dh dhead"),
    ),
    Bug::new(
        "prelude.cuh",
        "no barrier between the parts of a block's maximum and their reading",
        ["    __syncthreads();\n    return warp_max(", "    return warp_max("],
        (F32, "T=3 C=17 V=5"),
    ),
    Bug::new(
        "xent.cu",
        "totals of earlier tiles are not brought to the new maximum",
        ["s.total * correction + sum", "s.total + sum"],
        TILES,
    ),
    Bug::new(
        "xent.cu",
        "sums of earlier tiles are not brought to the new maximum",
        ["corrections[i] = correction;", "corrections[i] = 1.0f;"],
        TILES,
    ),
    Bug::new(
        "sum.cu",
        "slices are added to rows that were not rescaled",
        ["factor * get(y[e])", "get(y[e])"],
        (BF16, "T=2 C=16 V=32016 dh"),
    ),
    Bug::new(
        "mainloop.cuh",
        "a tile is added to rows that were not rescaled",
        ["put<Out>(fmaf(factor, get(old.at[i]), get(x.at[i])))", "put<Out>(get(old.at[i]) + get(x.at[i]))"],
        (BF16, "T=5 C=72 V=8192 dh"),
    ),
    Bug::new(
        "ffma.cu",
        "f32 products are added to rows that were not rescaled",
        ["fmaf(factor, old[e], x[e])", "old[e] + x[e]"],
        (F32, "T=5 C=72 V=8192 dh"),
    ),
    Bug::new(
        "labelled.cu",
        "no barrier before the warps' counts are replaced",
        ["        __syncthreads(); // the counts of the last tile have been read\n", ""],
        MANY,
    ),
    Bug::new(
        "labelled.cu",
        "tokens are listed from the start of their tile",
        ["place = before + __popc", "place = __popc"],
        MANY,
    ),
    Bug::new(
        "xent.cu",
        "maxima beyond the first block are left out",
        ["i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;", "i64 i = threadIdx.x;"],
        (F32, "T=500 C=3 V=9 dh 5 from 2"),
    )
    .nth(0),
    Bug::new(
        "xent.cu",
        "states beyond the first block are not rebased",
        ["i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;", "i64 i = threadIdx.x;"],
        (F32, "T=500 C=3 V=9 dh 5 from 2"),
    )
    .nth(1),
];
