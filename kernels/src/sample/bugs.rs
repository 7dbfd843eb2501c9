//! Bugs that the checks of `sample` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "prelude.cuh",
        "a wrong constant of Philox",
        ["PHILOX_KEY0 = 0x9E3779B9u", "PHILOX_KEY0 = 0x9E3779B1u"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "prelude.cuh",
        "no barrier before the parts of the last block maximum are replaced",
        ["    x = warp_max(x);\n    __syncthreads();\n", "    x = warp_max(x);\n"],
        (F32, "B=12 V=70"),
    ),
    // Scores, keys and weights.
    Bug::new(
        "sample.cu",
        "a penalty makes negative logits likelier",
        ["logit > 0.0f ? logit / repetition : __fmul_rn(logit, repetition)", "logit / repetition"],
        (F32, "B=12 V=100 all negative"),
    ),
    Bug::new(
        "sample.cu",
        "penalties are overlooked where rows are whole packs",
        ["row.penalties || V % PACK != 0", "V % PACK != 0"],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "rows that are no packs are read as packs",
        ["row.penalties || V % PACK != 0", "row.penalties"],
        (BF16, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "of equal tokens in a pack the last is taken",
        ["if (x[e] > seen.best) seen.token", "if (x[e] >= seen.best) seen.token"],
        (BF16, "B=12 V=1500 of 1 values"),
    ),
    Bug::new(
        "sample.cu",
        "logits beyond those that are held have no part in the sum",
        ["        if (i >= row.kept) total +=", "        if (false) total +="],
        (F32, "B=6 V=32700 the last likeliest"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier between the marks of previous tokens and their counting",
        ["counts[id] = 0;\n    }\n    __syncthreads();\n", "counts[id] = 0;\n    }\n"],
        (F32, "B=12 V=1500 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "marks of previous tokens replace each other",
        ["atomicOr(&penalized[id / 32], bit)", "(penalized[id / 32] = bit, 0)"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier between the counts and their reading",
        [
            "atomicAdd(&counts[previous[i]], 1);\n    __syncthreads();\n",
            "atomicAdd(&counts[previous[i]], 1);\n",
        ],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "counts begin with what the memory held",
        ["counts[id] = 0;", ";"],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "a repeated token is counted once",
        ["atomicAdd(&counts[previous[i]], 1)", "counts[previous[i]] = 1"],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "tokens of the prompt are counted",
        ["int i = p.generated + threadIdx.x", "int i = p.first + threadIdx.x"],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "tokens of the prompt have a presence penalty",
        ["        if (n == 0) return score;\n", ""],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "a presence penalty for each time",
        [
            "__fadd_rn(__fmul_rn(frequency, float(n)), presence)",
            "__fmul_rn(__fadd_rn(frequency, presence), float(n))",
        ],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "frequency and presence change places",
        ["p.frequency, p.presence", "p.presence, p.frequency"],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "every row counts in the memory of the first",
        ["    counts += b * V;\n", ""],
        (F32, "B=24 V=100 penalized"),
    ),
    Bug::new(
        "sample.cu",
        "tokens whose keys are not kept are lost",
        ["i < kept ? held[i] : key(i, logit(i))", "i < kept ? held[i] : FAR"],
        (BF16, "B=6 V=32700 the last likeliest"),
    ),
    Bug::new(
        "sample.cu",
        "the sum of probabilities without the maximum",
        ["total += expf(logit - max)", "total += expf(logit)"],
        (BF16, "B=12 V=70"),
    ),
    // Sums.
    Bug::new(
        "sample.cu",
        "no barrier before the parts of the last scan are replaced",
        ["    __syncthreads(); // the parts of an earlier call have been read\n", ""],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the first warp comes after all others",
        ["(warp() == 0 ? 0 : before) + here - x", "before + here - x"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "the carry between the words of a mass is lost",
        ["u32(mass >> 32) + (before + u32(mass) < before)", "u32(mass >> 32)"],
        (F32, "B=6 V=32016"),
    ),
    // Search.
    Bug::new(
        "sample.cu",
        "more tokens are wanted than have a mass",
        ["    if (found.at == FAR) return found;\n", ""],
        (F32, "B=24 V=40 but every 13th -inf"),
    ),
    Bug::new(
        "sample.cu",
        "a histogram begins with what the last one held",
        ["    fine.clear();\n", "    if (end == MIDDLE) fine.clear();\n"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "no barrier between a histogram and its search",
        ["    __syncthreads();\n    Found digit", "    Found digit"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "what was found is replaced before every warp has read it",
        [
            "    count = block_scan(count, all);\n    if (threadIdx.x == 0) found = {BINS, 0, 0}; // everyone has read an earlier one\n",
            "    if (threadIdx.x == 0) found = {BINS, 0, 0};\n    count = block_scan(count, all);\n",
        ],
        (F32, "B=24 V=40 but every 13th -inf"),
    ),
    Bug::new(
        "sample.cu",
        "the last digit is left out",
        ["    refine(row, fine, found, MIDDLE, 0, measure);\n", ""],
        (F32, "B=12 V=70"),
    ),
    // Filters.
    Bug::new(
        "sample.cu",
        "min-p does not change the sum of masses",
        ["if (w >= min_p) sums.likely += m", "sums.likely += m"],
        (F32, "B=12 V=1030"),
    ),
    Bug::new(
        "sample.cu",
        "tokens below min-p are drawn",
        ["weight(key) >= min_p ? mass(weight(key)) : 0", "mass(weight(key))"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "top-k keeps one token less",
        ["(last.rest + 1) * mass", "last.rest * mass"],
        (F32, "B=12 V=1500 of 1 values"),
    ),
    Bug::new(
        "sample.cu",
        "top-p keeps one token less",
        ["(last.rest / each + 1) * each", "last.rest / each * each"],
        (F32, "B=12 V=70"),
    ),
    Bug::new(
        "sample.cu",
        "tokens of a warp beyond its first 64 are summed twice",
        [
            "before = __shfl_sync(FULL, here, 31);\n        }",
            "before += __shfl_sync(FULL, here, 31);\n        }",
        ],
        (F32, "B=12 V=3300 of 3 values"),
    ),
    // Random numbers.
    Bug::new(
        "sample.cu",
        "the words of a draw change places",
        ["words.at[0]) << 32 | words.at[1]", "words.at[1]) << 32 | words.at[0]"],
        (F32, "B=12 V=70"),
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
