//! Bugs that the checks of `sample` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "prelude.cuh",
        "a wrong constant of Philox",
        ["k0 += 0x9E3779B9u", "k0 += 0x9E3779B1u"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "prelude.cuh",
        "no barrier before the parts of the last block sum are replaced",
        [
            "    x = warp_sum(x);\n    __syncthreads(); // the parts of an earlier call have been read\n",
            "    x = warp_sum(x);\n",
        ],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier before the parts of the last f64 sum are replaced",
        ["    __syncthreads(); // the parts of an earlier call have been read\n", ""],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the place found is replaced before every warp has read it",
        ["    __syncthreads(); // everyone has read it\n", ""],
        (BF16, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "a penalty makes negative logits likelier",
        ["logit > 0.0f ? logit / p.penalty : logit * p.penalty", "logit / p.penalty"],
        (F32, "B=12 V=100 all negative"),
    ),
    Bug::new(
        "sample.cu",
        "min-p is ignored",
        ["row.floor = params.min_p", "row.floor = 0.0f"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier between penalties and their reading",
        ["logit * p.penalty;\n    }\n    __syncthreads();\n", "logit * p.penalty;\n    }\n"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the words of a draw change places",
        ["words.at[0]) << 32 | words.at[1]", "words.at[1]) << 32 | words.at[0]"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the sum of probabilities without the maximum",
        ["total += expf(get(x[i]) - largest)", "total += expf(get(x[i]))"],
        (BF16, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier after the warps' sums are stored",
        ["sums[warp()] = sum;\n        __syncthreads();\n", "sums[warp()] = sum;\n"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "bisection leaves the last bit out",
        ["bit; bit >>= 1", "bit > 1; bit >>= 1"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "equals in earlier tiles are not counted",
        [
            "            before += counts[w];\n        }\n        // The n-th",
            "        }\n        // The n-th",
        ],
        (F32, "B=12 V=3300 of 3 values"),
    ),
    Bug::new(
        "sample.cu",
        "random numbers repeat after 65536 tokens",
        ["params.seed_low, params.step,", "params.seed_low, params.step & 0xffff,"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the upper half of a seed is ignored",
        ["u64(params.seed_high) << 32 | params.seed_low", "params.seed_low"],
        (F32, "B=12 V=70"),
    ),
];
