//! Bugs that the checks must detect: `s.cu`, `da.cu`, `strips.cu` and `fold.cu`: S, dA, dS and dB.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16};

const DROPPED: (DType, &str) = (BF16, "T=37 C=70 R=16 N=[48, 33] p=0.05");
const THREE: (DType, &str) = (BF16, "T=5 C=33 R=3 N=[7, 20, 1] p=0");
const LONG: (DType, &str) = (BF16, "T=530 C=40 R=4 N=[16] p=0.2");
const CHOSEN: (DType, &str) = (BF16, "T=9 C=40 R=3 N=[7, 16] adapters=3");
const WHOLE: (DType, &str) = (BF16, "T=130 C=5120 R=16 N=[72] p=0.05");
const SEVERAL: (DType, &str) = (BF16, "T=520 C=520 R=4 N=[9, 9, 9] p=0.1");
const ALIGNED: (DType, &str) = (BF16, "T=65 C=72 R=16 N=[136, 24, 40] p=0.1");

pub const BUGS: &[Bug] = &[
    Bug::new(
        "low_rank.cuh",
        "blocks of an adapter write zeros to the rows of the others",
        ["if (chosen[i] != adapter && !(none && chosen[i] < 0)) continue;", ""],
        CHOSEN,
    ),
    Bug::new(
        "low_rank.cuh",
        "every adapter has the first one's A",
        ["(i64(adapter) * R + line)", "i64(line)"],
        CHOSEN,
    ),
    Bug::new(
        "low_rank.cuh",
        "S is not scaled by alpha/r",
        ["pair[0] = scale * x[0]", "pair[0] = x[0]"],
        (BF16, "T=5 C=33 R=3 N=[7, 20, 1] p=0"),
    ),
    Bug::new(
        "low_rank.cuh",
        "R of the linears before is not rounded up",
        [
            "round_up(pick(target, f.r0, f.r1, f.r2, f.r3), RANK_GROUP)",
            "pick(target, f.r0, f.r1, f.r2, f.r3)",
        ],
        THREE,
    ),
    Bug::new(
        "low_rank.cuh",
        "rows without an adapter have no S",
        ["!(none && chosen[i] < 0)", "true"],
        CHOSEN,
    ),
    Bug::new(
        "low_rank.cuh",
        "the first adapter's block alone",
        ["for (; n > 0 &&", "for (; n > 1 &&"],
        CHOSEN,
    ),
    Bug::new(
        "s.cu",
        "dropout takes the bits of other channels",
        ["bits << (left - 4)", "bits << left"],
        DROPPED,
    ),
    Bug::new(
        "da.cu",
        "dropout of dA takes one row's bits for two",
        ["spread_signs(first, second,", "spread_signs(first, first,"],
        DROPPED,
    ),
    Bug::new(
        "s.cu",
        "every part of S goes on to the end of C",
        ["end = min(C, k + slice)", "end = C"],
        (BF16, "T=7 C=520 R=20 N=[264] p=0"),
    ),
    Bug::new(
        "strips.cu",
        "a strip of dy is not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads();\n        copy(i + 1);",
            "        __syncthreads();\n        copy(i + 1);",
        ],
        ALIGNED,
    )
    .quiet(),
    Bug::new(
        "strips.cu",
        "no barrier between strips of dy",
        [
            "        copy_wait<0>();\n        __syncthreads();\n        copy(i + 1);",
            "        copy_wait<0>();\n        copy(i + 1);",
        ],
        LONG,
    ),
    Bug::new(
        "strips.cu",
        "the next strip is copied before all have left its place",
        ["        __syncthreads();\n        copy(i + 1);", "        copy(i + 1);\n        __syncthreads();"],
        LONG,
    ),
    Bug::new(
        "tile.cuh",
        "threads that have no line of a tile copy one",
        ["                if (LINES % STEP != 0 && line + l >= LINES) break;\n", ""],
        LONG,
    ),
    Bug::new(
        "strips.cu",
        "one row too many of dS",
        ["if (row + 8 * half < rows) store", "if (row + 8 * half <= rows) store"],
        DROPPED,
    ),
    Bug::new(
        "strips.cu",
        "columns of B beyond R are read",
        ["if (n + line < N && column < R) load", "if (n + line < N) load"],
        LONG,
    ),
    Bug::new(
        "strips.cu",
        "only the last strip counts in dB",
        [
            "            add_db(acc, strip",
            "            for (auto &x : acc) for (auto &y : x) for (auto &z : y) z = 0.0f;\n            add_db(acc, strip",
        ],
        LONG,
    ),
    Bug::new(
        "da.cu",
        "dA is stored beyond the last channel",
        ["if (C % 2 == 0 && column < C)", "if (C % 2 == 0)"],
        ALIGNED,
    ),
    Bug::new(
        "da.cu",
        "the words of a tile replace those of the tile before, which may still be read",
        ["PACKED_TILES = Channels::STAGES + 1", "PACKED_TILES = Channels::STAGES"],
        LONG,
    ),
    Bug::new(
        "s.cu",
        "both threads of a row store their words in one place",
        ["*>(mask + first) =", "*>(mask) ="],
        WHOLE,
    ),
    Bug::new(
        "s.cu",
        "a row's words are read before all blocks of channels are there",
        [".at);\n        __syncthreads();", ".at);"],
        WHOLE,
    )
    .quiet(),
    Bug::new(
        "s.cu",
        "every tile has the first one's blocks of channels",
        ["place(tile, b)", "place(0, b)"],
        WHOLE,
    ),
    Bug::new(
        "s.cu",
        "the words of two tiles replace those that are read",
        ["tile % MASK_TILES", "tile % 2"],
        WHOLE,
    ),
    Bug::new(
        "s.cu",
        "A is loaded beyond its last channel",
        ["if (at < ends[i]) load", "if (ends[i]) load"],
        WHOLE,
    ),
    Bug::new("s.cu", "every tile has the first one's A", ["            at += Rows::BK;\n", ""], WHOLE),
    Bug::new("s.cu", "the words of odd tiles alone", ["tile += threadIdx.x % 2;", "tile += 1;"], WHOLE),
    Bug::new(
        "da.cu",
        "dropout of dA takes the words of the rows beyond a run",
        ["copied * Channels::BK < rows ? words : 0", "words"],
        DROPPED,
    ),
    Bug::new(
        "da.cu",
        "runs of rows of dA are stored in one place",
        ["    if (parts) parts += i64(blockIdx.z) * pitch * C;\n", ""],
        LONG,
    ),
    Bug::new(
        "da.cu",
        "dA of one run is not scaled up",
        ["        if (!parts) pair[0] = scale * x0, pair[1] = scale * x1;\n", ""],
        DROPPED,
    ),
    Bug::new(
        "da.cu",
        "every linear's dA of one run is the first one's",
        ["pick(target, da0, da1, da2, da3)", "da0"],
        ALIGNED,
    ),
    Bug::new(
        "da.cu",
        "dA of one run has a line more than R",
        ["if (row < R) return", "if (row <= R) return"],
        THREE,
    ),
    Bug::new(
        "fold.cu",
        "sums of dS are not scaled by alpha/r",
        ["pick(target, s0, s1, s2, s3), 4, true", "1.0f, 4, true"],
        THREE,
    ),
    Bug::new(
        "fold.cu",
        "four columns of dB are stored where R has fewer",
        ["1.0f, min(R - r, 4), true", "1.0f, 4, true"],
        THREE,
    ),
    Bug::new(
        "fold.cu",
        "rows of dB that are no packs are stored as packs",
        ["min(R - r, 4), true, R % 4 == 0", "min(R - r, 4), true, true"],
        THREE,
    ),
    Bug::new(
        "fold.cu",
        "the next linear's parts of dS begin where the strips of the first end",
        ["        of_ds += ds_parts(T, N, padded);\n", "        of_ds += ds_parts(T, N, 1);\n"],
        ALIGNED,
    ),
    Bug::new(
        "fold.cu",
        "every linear's dA is the first one's",
        ["        parts += i64(round_up(R, RANK_GROUP)) * C;\n", ""],
        SEVERAL,
    ),
    Bug::new(
        "fold.cu",
        "the last run of rows is left out of dA",
        ["i64(pitch) * C, runs, scale", "i64(pitch) * C, max(runs - 1, 1), scale"],
        LONG,
    ),
];
