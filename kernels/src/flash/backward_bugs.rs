//! Bugs that the checks must detect: `backward.cu`.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const GROUPED: (DType, &str) = (BF16, "T=[7, 1, 5] H=4 K=2 D=8");
const TILES: (DType, &str) = (BF16, "T=[70] H=2 K=1 D=24");
/// More than one tile of keys.
const LONG: (DType, &str) = (BF16, "T=[300, 3] H=1 K=1 D=8");
const LONG_F32: (DType, &str) = (F32, "T=[300, 3] H=1 K=1 D=8");

pub const BUGS: &[Bug] = &[
    // flash_delta
    Bug::new(
        "flash/backward.cu",
        "Δ is taken from beside the diagonal",
        ["if (tiles.row(r) == tiles.column(c) &&", "if (tiles.row(r) == tiles.column(c) + 1 &&"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "Δ does not wait for its tiles",
        ["    copy_commit();\n    copy_wait<0>();\n", "    copy_commit();\n"],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "Δ of the row behind the last",
        ["first + r < rows", "first + r <= rows"],
        GROUPED,
    ),
    Bug::new("flash/backward.cu", "turns do not begin at 0", ["turns[i] = 0;", "turns[i] = 1;"], LONG),
    // flash_backward
    Bug::new(
        "flash/backward.cu",
        "a row does not see its own key",
        ["tile + tiles.column(c) < job.slots.place", "tile + tiles.column(c) <= job.slots.place"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "only the first query head of a group counts",
        ["more = next_head < (kv + 1) * G", "more = next_head < kv * G + 1"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "L and Δ are always the first head's",
        ["int index = row(h, tile + threadIdx.x", "int index = row(kv * G, tile + threadIdx.x"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "the next L and Δ are not copied",
        [
            "        if (threadIdx.x < 2 * Keys::COLS) {",
            "        if (threadIdx.x < 2 * Keys::COLS && tile == p.first) {",
        ],
        (F32, "T=[70] H=2 K=1 D=24"),
    ),
    Bug::new("flash/backward.cu", "Δ is left out", ["(ds.at(r, c) - mean[c])", "ds.at(r, c)"], GROUPED),
    Bug::new(
        "flash/backward.cu",
        "no barrier after one thread has written what the block works on",
        [
            "p.start / STRIP + p.document, {}};\n    }\n    __syncthreads();\n",
            "p.start / STRIP + p.document, {}};\n    }\n",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "the next queries replace those in use",
        [
            "        __syncthreads(); // the queries are there, those of the last step have been used, and its dq has been stored\n",
            "",
        ],
        (BF16, "T=[130] H=2 K=1 D=128"),
    ),
    Bug::new(
        "flash/backward.cu",
        "queries are not waited for",
        [
            "        copy_wait<1>();\n        __syncthreads(); // the queries are there",
            "        __syncthreads(); // the queries are there",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "gradients are not waited for",
        [
            "        copy_wait<1>();\n        __syncthreads(); // the gradients and P are there",
            "        __syncthreads(); // the gradients and P are there",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "P of another warp is read before it is there",
        ["        __syncthreads(); // the gradients and P are there\n", ""],
        TILES,
    ),
    Bug::new(
        "flash/backward.cu",
        "dS of another warp is read before it is there",
        [
            "        __syncthreads(); // dS is there, the gradients have been used, and it is the block's turn\n",
            "",
        ],
        TILES,
    ),
    Bug::new(
        "flash/backward.cu",
        "the query behind the document counts",
        ["position < job.length ?", "position <= job.length ?"],
        GROUPED,
    ),
    Bug::new("flash/backward.cu", "dk is not scaled", ["    scale_by(dk_sums, scale);\n", ""], GROUPED),
    Bug::new(
        "flash/backward.cu",
        "P takes its scale from another place than forward",
        ["    scale_by(dk_sums, scale);\n", "    scale_by(dk_sums, scale);\n    scale_by(dv_sums, scale);\n"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "queries beyond two splits move no key",
        ["if (next >= job.length) {", "if (next >= min(job.length, 512)) {"],
        (BF16, "T=[5, 600, 3, 257, 256, 1] H=2 K=1 D=24"),
    ),
    Bug::new(
        "flash/backward.cu",
        "the buffers do not change places",
        ["        parity = 1 - parity;\n", ""],
        TILES,
    ),
    // dq
    Bug::new(
        "flash/backward.cu",
        "a block does not wait for its turn",
        ["wait_for_turn(got, before)", "wait_for_turn(got, 0)"],
        LONG,
    ),
    Bug::new(
        "flash/backward.cu",
        "a block waits for the turn before its own",
        ["wait_for_turn(got, before)", "wait_for_turn(got, before - 1)"],
        LONG,
    ),
    Bug::new(
        "flash/backward.cu",
        "a turn is never ended",
        [
            "        if (threadIdx.x == 0 && job.turn.got) end_turn(job.turn.got);\n        int next",
            "        int next",
        ],
        LONG,
    ),
    Bug::new(
        "flash/backward.cu",
        "the summands before are left out",
        ["if (job.turn.before > 0) load_sums(dq_sums, job.turn, H);", ""],
        LONG,
    ),
    Bug::new(
        "flash/backward.cu",
        "a tile's sums are those of its document's first tile",
        ["job.strip + tile / STRIP", "job.strip"],
        LONG_F32,
    ),
    Bug::new(
        "flash/backward.cu",
        "strips behind the document are stored",
        ["        if (strip < turn.strips) store_shared_by_blocks", "        store_shared_by_blocks"],
        (BF16, "T=[523] H=3 K=1 D=128"),
    ),
    Bug::new(
        "backward_mma.cuh",
        "dq is not scaled",
        ["{x[0] * scale, x[1] * scale}", "{x[0], x[1]}"],
        GROUPED,
    ),
    Bug::new(
        "backward_mma.cuh",
        "keys that no row of the tile sees are summed",
        ["            if (first >= reach) break;\n", ""],
        LONG,
    ),
    Bug::new(
        "backward_mma.cuh",
        "the factor of the warp beside is taken for this one's",
        ["(1 - half()) * 64;", "half() * 64;"],
        TILES,
    ),
    Bug::new(
        "backward_ffma.cuh",
        "dS is not transposed",
        ["tile + k * STRIDE + index / 16 * OWN", "tile + index / 16 * OWN * STRIDE + k / 2 * 2"],
        (F32, "T=[70] H=2 K=1 D=24"),
    ),
];
