//! Bugs that the checks must detect: `decode.cu`, and `forward.cu` over pages.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const MIXED: (DType, &str) =
    (BF16, "rows=[(0, 0..1), (2, 17..18), (1, 40..41), (3, 5..12)] page=16 H=4 K=2 D=8");
const ALONE: (DType, &str) =
    (BF16, "rows=[(0, 15..16), (1, 16..17), (2, 63..64), (3, 64..65)] page=16 H=2 K=1 D=24");
const SPLITS: (DType, &str) =
    (BF16, "rows=[(0, 255..256), (1, 256..257), (2, 800..801)] page=128 H=4 K=2 D=128");
const LONG: (DType, &str) = (BF16, "rows=[(0, 249..264)] page=256 H=1 K=1 D=64");

pub const BUGS: &[Bug] = &[
    // decode.cu: flash_decode
    Bug::new(
        "flash/decode.cu",
        "every split begins at the first key",
        ["tile = blockIdx.z * SPLIT", "tile = 0"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "query heads of a group are spread over kv heads",
        ["int h = kv * G + first", "int h = kv + first"],
        (F32, "rows=[(0, 0..1), (2, 17..18), (1, 40..41), (3, 5..12)] page=16 H=4 K=2 D=8"),
    ),
    Bug::new(
        "flash/decode.cu",
        "a block takes more query heads than the group has left",
        ["rows = min(G - first, Decode::ROWS)", "rows = Decode::ROWS"],
        (BF16, "rows=[(0, 9..10)] page=16 H=20 K=1 D=8"),
    ),
    Bug::new(
        "flash/decode.cu",
        "no barrier after one thread has written what the block works on",
        ["page, N, K, kv}};\n    __syncthreads();\n", "page, N, K, kv}};\n"],
        ALONE,
    )
    .quiet(),
    Bug::new(
        "flash/decode.cu",
        "every sequence has the first one's pages",
        ["{tables + i64(sequence) * M", "{tables"],
        ALONE,
    ),
    Bug::new(
        "flash/decode.cu",
        "a row of two splits is done after the first",
        ["if (position < SPLIT) {", "if (position <= SPLIT) {"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "splits of two rows share their places",
        ["i64(blockIdx.x) * gridDim.z * H + h", "i64(blockIdx.x) * H + h"],
        SPLITS,
    ),
    // decode.cu: the ring of tiles
    Bug::new(
        "flash/decode.cu",
        "keys may be one group of copies late",
        ["copy_wait<RING - 2>();", "copy_wait<RING - 1>();"],
        SPLITS,
    )
    .nth(0)
    .quiet(),
    Bug::new(
        "flash/decode.cu",
        "values may be one group of copies late",
        ["copy_wait<RING - 2>();", "copy_wait<RING - 1>();"],
        SPLITS,
    )
    .nth(1)
    .quiet(),
    Bug::new(
        "flash/decode.cu",
        "no barrier before keys are used",
        ["        __syncthreads(); // k is there, and the last v has been used\n", ""],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "no barrier before values are used",
        ["        __syncthreads(); // v is there, and k has been used\n", ""],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "all tiles of keys share one place",
        ["step / 2 % (RING / 2) * TILE * DP", "0"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "values are copied to a place that is read",
        ["copy(step + RING);", "copy(step + RING - 2);"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "keys behind the row are not hidden",
        ["if (tile + TILE > end) hide", "if (false) hide"],
        SPLITS,
    ),
    // decode.cu: the join of splits
    Bug::new(
        "flash/decode.cu",
        "the last split is not joined",
        ["position / SPLIT + 1, H", "position / SPLIT, H"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "splits are added, not joined",
        ["sum[j] = join(sum[j], x[j])", "sum[j] += x[j]"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "the joined maximum is not kept",
        ["            top = join.top;\n", ""],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "every block joins the splits",
        ["if (!is_last(arrivals + blockIdx.x * gridDim.y + blockIdx.y, position / SPLIT)) return;", ""],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "heads of a row count the same arrivals",
        ["arrivals + blockIdx.x * gridDim.y + blockIdx.y", "arrivals + blockIdx.x * gridDim.y"],
        SPLITS,
    ),
    Bug::new(
        "flash/decode.cu",
        "states are stored as if no other block read them",
        ["keep<true>", "keep<false>"],
        SPLITS,
    )
    .quiet(),
    Bug::new(
        "flash/decode.cu",
        "the states of the first row are joined",
        ["sums + part * DP, stats", "sums + h * DP, stats"],
        SPLITS,
    ),
    Bug::new(
        "prelude.cuh",
        "arrivals are not reset",
        ["atomicInc(arrivals, others) == others", "atomicAdd(arrivals, 1u) == others"],
        SPLITS,
    ),
    // Shared by both.
    Bug::new("tiles.cuh", "pages are taken in their own order", ["int p = table[i];", "int p = i;"], ALONE),
    Bug::new(
        "tiles.cuh",
        "positions within a page count from 1",
        ["position - i * page;", "position - i * page + 1;"],
        ALONE,
    ),
    Bug::new(
        "tiles.cuh",
        "heads and positions of a page change places",
        ["(p * K + kv) * page + position - i * page", "(p * page + position - i * page) * K + kv"],
        MIXED,
    ),
    Bug::new(
        "tiles.cuh",
        "a head's pages lie together, before those of the next head",
        ["(p * K + kv) * page", "(kv * N + p) * page"],
        MIXED,
    ),
    Bug::new(
        "tiles.cuh",
        "a run does not end with its sequence",
        ["sequences[t] != sequences[t - 1] || ", ""],
        (BF16, "rows=[(0, 5..7), (1, 7..8)] page=16 H=2 K=1 D=8"),
    ),
    Bug::new(
        "attend.cuh",
        "what was kept is not joined at its maximum",
        ["older = grown(before - top)", "older = 1.0f"],
        SPLITS,
    ),
    Bug::new(
        "mma.cuh",
        "no barrier before the scores of other warps are read",
        [
            "{part[n][2 * r], part[n][2 * r + 1]});\n        __syncthreads();\n",
            "{part[n][2 * r], part[n][2 * r + 1]});\n",
        ],
        ALONE,
    ),
    Bug::new(
        "mma.cuh",
        "every warp sums the first channels",
        ["k * 32 + lane(), warp() * RUNS + n", "k * 32 + lane(), n"],
        SPLITS,
    ),
    // forward.cu: flash_pages
    Bug::new(
        "flash/forward.cu",
        "over pages: query heads of a group read different kv heads",
        ["h / int(opaque(H) / K);", "h % K;"],
        MIXED,
    ),
    Bug::new(
        "flash/forward.cu",
        "over pages: rows are placed at the beginning of a tile",
        ["low = positions[t] & (Prefill::ROWS - 1)", "low = 0"],
        (BF16, "rows=[(1, 100..130), (0, 33..35)] page=32 H=2 K=2 D=72"),
    )
    .missed("a row's sums do not depend on its slot: which rows share a tile is all that changes"),
    Bug::new(
        "flash/forward.cu",
        "the splits of a run are not kept",
        ["        store.keep<false>(state, at);\n", ""],
        LONG,
    ),
    Bug::new(
        "flash/decode.cu",
        "splits beyond the fourth are not joined",
        ["position / SPLIT + 1, H", "min(position / SPLIT + 1, 4), H"],
        (BF16, "rows=[(0, 1300..1301), (1, 257..258)] page=64 H=6 K=3 D=120"),
    ),
    Bug::new(
        "tiles.cuh",
        "single rows of earlier rows of 32 are not counted",
        ["            single += __popc(ones);\n", ""],
        (BF16, "70 rows of 3 sequences page=16 H=2 K=1 D=24"),
    ),
    Bug::new(
        "tiles.cuh",
        "runs of earlier rows of 32 are not counted",
        ["            found += __popc(hits);\n", ""],
        (BF16, "172 rows of 40 sequences page=16 H=4 K=2 D=32"),
    ),
];
