//! Bugs that the checks must detect: `backward.cu`.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const GROUPED: (DType, &str) = (BF16, "T=[7, 1, 5] H=4 K=2 D=8");
const TILES: (DType, &str) = (BF16, "T=[70] H=2 K=1 D=24");

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
    // flash_dq
    Bug::new(
        "flash/backward.cu",
        "dq: query heads of a group read different kv heads",
        ["h / (H / K), rows", "h % K, rows"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dq: no barrier after one thread has written what the block works on",
        ["{p.start * K + kv, K}};\n    __syncthreads();\n", "{p.start * K + kv, K}};\n"],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "dq: L of rows that are not there is read, and not used",
        ["index < 0 ? INFINITE : lse[index]", "lse[index]"],
        GROUPED,
    ),
    Bug::new("flash/backward.cu", "dq: Δ is left out", ["(ds.at(r, c) - mean[r])", "ds.at(r, c)"], GROUPED),
    Bug::new("flash/backward.cu", "dq is not scaled", ["    scale_by<Tiles>(sums, scale);\n", ""], GROUPED),
    Bug::new(
        "flash/backward.cu",
        "dq: values are not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads(); // the values are in y",
            "        __syncthreads(); // the values are in y",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "dq: the next keys replace values that are in use",
        ["        __syncthreads(); // y has been used\n", ""],
        TILES,
    ),
    Bug::new(
        "flash/backward.cu",
        "dq: keys after a row are not hidden",
        ["if (tile + Tiles::COLS - 1 > slots.place(first)) hide", "if (false) hide"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dq: the buffers do not change places",
        [
            "            tiles.gather(sums, ds, walk.x, walk.exchange);\n        }\n        walk.swap();\n",
            "            tiles.gather(sums, ds, walk.x, walk.exchange);\n        }\n",
        ],
        TILES,
    ),
    // flash_dkdv
    Bug::new(
        "flash/backward.cu",
        "dk, dv: a row does not see its own key",
        ["tile + tiles.column(c) < job.slots.place", "tile + tiles.column(c) <= job.slots.place"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: only the first query head of a group counts",
        ["more = h < (kv + 1) * G", "more = h < kv * G + 1"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: L and Δ are always the first head's",
        ["job.start + position : 0) * H + h", "job.start + position : 0) * H + kv * G"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: L and Δ of the last tile are kept",
        ["            copy_async_word(", "            if (tile == p.first) copy_async_word("],
        (F32, "T=[70] H=2 K=1 D=24"),
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: L and Δ are replaced while they are in use",
        ["        __syncthreads(); // y, L and Δ have been used\n", ""],
        TILES,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: gradients are not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads(); // the gradients are in y",
            "        __syncthreads(); // the gradients are in y",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: queries are not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads(); // the queries are in x",
            "        __syncthreads(); // the queries are in x",
        ],
        GROUPED,
    )
    .quiet(),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: the query behind the document counts",
        ["tile + r < job.length", "tile + r <= job.length"],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk is not scaled",
        ["    scale_by<Tiles>(dk_sums, scale);\n", ""],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "dk, dv: P takes its scale from another place than forward",
        [
            "    Tiles().write(dv, D, dv_sums, at, walk.b, D);",
            "    scale_by<Tiles>(dv_sums, scale);\n    Tiles().write(dv, D, dv_sums, at, walk.b, D);",
        ],
        GROUPED,
    ),
    Bug::new(
        "flash/backward.cu",
        "keys beyond two splits move no query",
        ["tile < slots.end(); tile += Tiles::COLS", "tile < min(slots.end(), 512); tile += Tiles::COLS"],
        (BF16, "T=[5, 600, 3, 257, 256, 1] H=2 K=1 D=24"),
    ),
    Bug::new(
        "flash/backward.cu",
        "queries beyond two splits move no key",
        ["if (tile >= job.length) {", "if (tile >= min(job.length, 512)) {"],
        (BF16, "T=[5, 600, 3, 257, 256, 1] H=2 K=1 D=24"),
    ),
];
