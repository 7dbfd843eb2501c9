//! Bugs that the checks must detect: `forward.cu` over packed documents, and the headers that all of attention shares.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const GROUPED: (DType, &str) = (BF16, "T=[7, 1, 5] H=4 K=2 D=8");
const GROUPED_F32: (DType, &str) = (F32, "T=[7, 1, 5] H=4 K=2 D=8");
const TILES: (DType, &str) = (BF16, "T=[70] H=2 K=1 D=24");
const TILES_F32: (DType, &str) = (F32, "T=[70] H=2 K=1 D=24");
const LONG: (DType, &str) = (BF16, "T=[130] H=2 K=1 D=128");
/// On one multiprocessor by tall tiles.
const TALL: (DType, &str) = (BF16, "T=[770, 300] H=1 K=1 D=128");

pub const BUGS: &[Bug] = &[
    // forward.cu
    Bug::new(
        "flash/forward.cu",
        "query heads of a group read different kv heads",
        ["h / (H / K), rows", "h % K, rows"],
        GROUPED,
    ),
    Bug::new(
        "flash/forward.cu",
        "no barrier after one thread has written what the block works on",
        ["{p.start * K + kv, K}};\n    __syncthreads();\n", "{p.start * K + kv, K}};\n"],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/forward.cu",
        "L is the maximum alone",
        ["state.top[r] + logarithm(state.total[r])", "state.top[r]"],
        GROUPED,
    ),
    Bug::new(
        "flash/forward.cu",
        "tiles end where a document that begins later would",
        ["rows = min(Prefill::ROWS, p.length - p.first)", "rows = min(Prefill::ROWS, p.length)"],
        LONG,
    ),
    Bug::new(
        "flash/forward.cu",
        "tiles end beyond their document",
        ["rows = min(Prefill::ROWS, p.length - p.first)", "rows = Prefill::ROWS"],
        GROUPED,
    ),
    // attend.cuh
    Bug::new(
        "attend.cuh",
        "a row does not see its own key",
        ["tile + tiles.column(c) > slots.place", "tile + tiles.column(c) >= slots.place"],
        GROUPED,
    ),
    Bug::new(
        "attend.cuh",
        "a row sees the key behind it",
        ["tile + tiles.column(c) > slots.place", "tile + tiles.column(c) > 1 + slots.place"],
        GROUPED,
    ),
    Bug::new(
        "attend.cuh",
        "the key behind the document is copied, and hidden",
        ["tile + row < job.slots.end()", "tile + row <= job.slots.end()"],
        GROUPED,
    ),
    Bug::new(
        "attend.cuh",
        "keys are not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads(); // k is there",
            "        __syncthreads(); // k is there",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "attend.cuh",
        "values are not waited for",
        [
            "                copy_wait<0>();\n                __syncthreads(); // v is there",
            "                __syncthreads(); // v is there",
        ],
        TILES,
    )
    .quiet(),
    Bug::new(
        "attend.cuh",
        "no barrier after keys",
        ["        __syncthreads(); // k is there (and v, if AHEAD), and the last v has been used\n", ""],
        TILES,
    ),
    Bug::new(
        "attend.cuh",
        "no barrier after values",
        ["                __syncthreads(); // v is there, and k has been used\n", ""],
        TILES,
    ),
    Bug::new(
        "attend.cuh",
        "the total is not brought to the new maximum",
        ["total[r] = fmaf(total[r], by[r], sum)", "total[r] += sum"],
        LONG,
    ),
    Bug::new(
        "attend.cuh",
        "sums are not brought to the new maximum",
        ["Tiles::R; r++) shrink(r, by[r]);", "Tiles::R; r++) {}"],
        LONG,
    ),
    Bug::new(
        "attend.cuh",
        "a thread's share is taken for the row's total",
        ["total[r] = warp_sum<Tiles::SHARING>(total[r])", "total[r] = total[r]"],
        GROUPED,
    ),
    Bug::new("attend.cuh", "sums are not cleared", ["        sums = {};\n", ""], GROUPED_F32),
    Bug::new(
        "attend.cuh",
        "the second tile of a split rescales nothing either",
        ["tile % SPLIT == 0);\n            tiles.gather", "tile % SPLIT <= TILE);\n            tiles.gather"],
        LONG,
    ),
    Bug::new(
        "attend.cuh",
        "a warp that does not see a tile leaves out its barrier",
        ["            turn(); // a warp goes", "            // a warp goes"],
        LONG,
    ),
    Bug::new(
        "attend.cuh",
        "the first tile of the next split is not copied",
        ["if (tile + TILE < stage.job", "if ((tile + TILE) % SPLIT && tile + TILE < stage.job"],
        TALL,
    ),
    Bug::new(
        "attend.cuh",
        "tiles are copied to the stage that is in use",
        ["tile / TILE % Tiles::STAGES * TILE * DP", "0"],
        TALL,
    ),
    Bug::new(
        "attend.cuh",
        "with two stages, no barrier between the copies of several warps and their use",
        [
            "        __syncthreads(); // k is there (and v",
            "        if (!AHEAD) __syncthreads(); // k is there (and v",
        ],
        TALL,
    ),
    Bug::new(
        "attend.cuh",
        "with two stages, a copy is not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads(); // k is there",
            "        copy_wait<AHEAD>();\n        __syncthreads(); // k is there",
        ],
        TALL,
    ),
    Bug::new(
        "attend.cuh",
        "with two stages, values are copied to where the keys lie",
        ["{at(stage.k, tile), at(stage.v, tile)}, {k, v}", "{at(stage.k, tile), at(stage.k, tile)}, {k, v}"],
        TALL,
    ),
    // tiles.cuh
    Bug::new(
        "tiles.cuh",
        "channels beyond a head are those of the next one",
        ["source >= 0 && c * CHUNK < D", "source >= 0"],
        GROUPED,
    ),
    Bug::new(
        "tiles.cuh",
        "rows of zeros are read from before the tensor",
        ["p, real ? 16 : 0)", "p, 16)"],
        (F32, "T=[1] H=1 K=1 D=8"),
    ),
    Bug::new(
        "tiles.cuh",
        "a document's first tile belongs to the one before",
        ["starts[d] / ROWS + d <= slot", "starts[d] / ROWS + d < slot"],
        GROUPED,
    ),
    Bug::new(
        "tiles.cuh",
        "a lane copies to the rows of its neighbour",
        ["to[n] + i * STRIDE * CHUNKS * 16", "to[n] + i * STEP * CHUNKS * 16"],
        TILES,
    ),
    // mma.cuh, ffma.cuh
    Bug::new(
        "mma.cuh",
        "fragments of p change places",
        [
            "    a[half] = pair(left[2 * half], left[2 * half + 1]);\n    a[half + 2] =",
            "    a[2 * half] = pair(left[2 * half], left[2 * half + 1]);\n    a[2 * half + 1] =",
        ],
        TILES,
    ),
    Bug::new(
        "mma.cuh",
        "a step along k is added where it has to be exclusive or",
        ["(rows ^ k * 32) + i * 16", "(rows + k * 32) + i * 16"],
        (BF16, "T=[33, 65] H=3 K=3 D=40"),
    ),
    Bug::new(
        "mma.cuh",
        "keys are read as a left operand is",
        ["row + lane % 8 + lane / 16 * 8, lane / 8 % 2", "row + lane % 16, lane / 16"],
        GROUPED,
    ),
    Bug::new(
        "ffma.cuh",
        "p is handed round with another stride than it is read",
        ["tile[row(r) * STRIDE + column(c)]", "tile[row(r) * (STRIDE + 1) + column(c)]"],
        GROUPED_F32,
    ),
    Bug::new(
        "ffma.cuh",
        "a row is written whole, whatever D is",
        ["if (index >= 0 && channel(n) < D) store", "if (index >= 0) store"],
        TILES_F32,
    ),
    // Lanes of one warp that exchange by way of memory.
    Bug::new(
        "ffma.cuh",
        "p is read before other lanes have stored it",
        ["        __syncwarp();\n", ""],
        TILES_F32,
    ),
    Bug::new(
        "mma.cuh",
        "a row of o is read before other lanes have stored it",
        ["        __syncwarp();\n        int c = lane()", "        int c = lane()"],
        TILES,
    ),
    Bug::new(
        "mma.cuh",
        "a row of q is overwritten before other lanes have read it",
        ["        __syncwarp(); // other lanes have read these rows\n", ""],
        TALL,
    ),
    Bug::new(
        "mma.cuh",
        "the second half of the channels is that of the first",
        ["+ n / 4 * 128 + k", "+ k"],
        LONG,
    ),
    Bug::new(
        "tiles.cuh",
        "documents beyond the lanes of a warp are overlooked",
        ["i < documents; i += 32", "i < min(documents, 32); i += 32"],
        (
            BF16,
            "T=[3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3] H=2 K=1 D=8",
        ),
    ),
];
