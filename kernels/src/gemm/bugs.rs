//! Bugs that the checks of `gemm` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

/// Two stages of a pipeline of six, three slices of K.
const SLICED: (DType, &str) = (BF16, "T=9 N=48 K=2104");

pub const BUGS: &[Bug] = &[
    // gemm.cu: slices and tiles.
    Bug::new("gemm.cu", "every slice goes on to the end of K", ["min(K, k + slice)", "K"], SLICED),
    Bug::new("gemm.cu", "all slices are stored in one place", ["y_at + part * i64(M) * N", "y_at"], SLICED),
    Bug::new(
        "gemm.cu",
        "rows of the right operand have the left one's length",
        ["FORM == NT ? K : N, N, end", "K, N, end"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "mainloop.cuh",
        "a column of tiles is taken to be eight tiles high",
        ["height = min(rows - first, GROUP)", "height = GROUP"],
        (BF16, "T=65 N=136 K=24"),
    ),
    // group.cu and group.cuh
    Bug::new(
        "gemm/group.cu",
        "every product has the first weight",
        ["{pick(place.target, w0, w1, w2, w3), K", "{w0, K"],
        (BF16, "T=16 N=[72, 136] K=264"),
    ),
    Bug::new(
        "gemm/group.cu",
        "every product is as wide as the first",
        ["int N = pick(place.target, n0, n1, n2, n3);", "int N = n0;"],
        (BF16, "T=1 N=[40, 8, 33] K=72"),
    ),
    Bug::new(
        "gemm/group.cu",
        "every product is stored as the first",
        ["pick(place.target, y0, y1, y2, y3)", "y0"],
        (BF16, "T=64 N=[96, 64] K=200"),
    ),
    Bug::new(
        "group.cuh",
        "columns go on counting in the second product",
        ["n -= tiles(target++) * BN;", "target++;"],
        (BF16, "T=16 N=[72, 136] K=264"),
    ),
    Bug::new(
        "group.cuh",
        "the fourth product is left out",
        ["while (target < 3 &&", "while (target < 2 &&"],
        (BF16, "T=33 N=[24, 40, 16, 33] K=136"),
    ),
    // gated.cu
    Bug::new(
        "gemm/gated.cu",
        "gate and up change places",
        ["{gate, K, N, K}, {up, K, N, K}", "{up, K, N, K}, {gate, K, N, K}"],
        (BF16, "T=16 N=136 K=264 gated"),
    ),
    Bug::new(
        "gemm/gated.cu",
        "up is copied over gate",
        ["other.copy(stage + Block::A::BYTES + Half::BYTES)", "other.copy(stage + Block::A::BYTES)"],
        (BF16, "T=1 N=40 K=72 gated"),
    ),
    Bug::new(
        "gemm/gated.cu",
        "a block is as wide as its products",
        [
            "Place place(blockIdx.x, M, N, Block::BM, HALF)",
            "Place place(blockIdx.x, M, N, Block::BM, Block::BN)",
        ],
        (BF16, "T=64 N=33 K=200 gated"),
    ),
    Bug::new(
        "gemm/gated.cu",
        "a chunk of gate is multiplied by the next one of gate",
        ["chunk + CHUNKS)", "chunk + 1)"],
        (BF16, "T=16 N=136 K=264 gated"),
    ),
    Bug::new(
        "gemm/gated.cu",
        "columns beyond the last are stored",
        ["if (row >= M || column >= N) continue;", "if (row >= M) continue;"],
        (BF16, "T=16 N=136 K=264 gated"),
    ),
    // mainloop.cuh: the pipeline.
    Bug::new(
        "mainloop.cuh",
        "the first wait leaves one group too many",
        ["copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"],
        (BF16, "T=12 N=32 K=256"),
    )
    .nth(0)
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "the loop's wait leaves one group too many",
        ["copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"],
        SLICED,
    )
    .nth(1)
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "the loop does not wait for copies at all",
        ["                    copy_wait<STAGES - 2>();\n", ""],
        SLICED,
    )
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "copies are not closed to a group",
        ["            copied++;\n            copy_commit();", "            copied++;"],
        SLICED,
    )
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "no barrier once the first tile has landed",
        [
            "        copy_wait<STAGES - 2>();\n        __syncthreads();\n",
            "        copy_wait<STAGES - 2>();\n",
        ],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "mainloop.cuh",
        "no barrier between tiles",
        [
            "                    copy_wait<STAGES - 2>();\n                    __syncthreads();\n",
            "                    copy_wait<STAGES - 2>();\n",
        ],
        SLICED,
    ),
    Bug::new(
        "mainloop.cuh",
        "copies go on beyond the last tile",
        ["if (copied < tiles) {", "if (true) {"],
        (BF16, "T=12 N=32 K=256"),
    )
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "a stage is filled while it is read",
        ["write = (STAGES - 1) * STAGE;", "write = 0;"],
        SLICED,
    ),
    Bug::new(
        "mainloop.cuh",
        "a tile that K ends in is left out",
        ["(a.depth - k + BK - 1) / BK", "(a.depth - k) / BK"],
        (BF16, "T=33 N=35 K=72"),
    ),
    Bug::new(
        "mainloop.cuh",
        "the next fragments replace those in use",
        ["&next = f[(step + 1) % 2]", "&next = f[step % 2]"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "mainloop.cuh",
        "one row too many is stored",
        ["if (row >= M || column >= N) continue;", "if (row > M || column >= N) continue;"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "mainloop.cuh",
        "no barrier before the tile of y is read back",
        ["        });\n        __syncthreads();\n", "        });\n"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "mainloop.cuh",
        "accumulators of the lower rows are the upper ones'",
        ["acc[i][j][2 * half], acc", "acc[i][j][0], acc"],
        (BF16, "T=12 N=32 K=256"),
    ),
    // tile.cuh and the prelude: copies, swizzle, fragments.
    Bug::new(
        "tile.cuh",
        "chunks beyond the matrix are read",
        ["count > 0 ? 16 : 0", "16"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "tile.cuh",
        "rows beyond the matrix are not zeroed",
        ["l < lines ? elements : 0", "elements"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "tile.cuh",
        "elements beyond an unaligned row are read",
        ["            if (i < count) {\n", "            if (true) {\n"],
        (BF16, "T=13 N=33 K=17"),
    ),
    Bug::new(
        "tile.cuh",
        "the bound does not move along K",
        ["            (ALONG_K ? elements : lines) -= DEPTH;\n", ""],
        (BF16, "T=29 N=70 K=515"),
    ),
    Bug::new(
        "tile.cuh",
        "the left operand is read without the swizzle",
        ["at(outer + l % 16, l / 16)", "u32((outer + l % 16) * PITCH + l / 16 * 16)"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "tile.cuh",
        "a step along K is added where it has to be exclusive or",
        ["(from ^ (k * SIZE)) + outer * PITCH", "(from + (k * SIZE)) + outer * PITCH"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "tile.cuh",
        "two fragments of the right operand change places",
        ["b[j][1] = x[1], b[j + 1][0] = x[2]", "b[j][1] = x[2], b[j + 1][0] = x[1]"],
        (BF16, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "tile.cuh",
        "f32 weights: the second half of a fragment is the first",
        ["from ^ (32 * half)", "from"],
        (BF16, "T=20 N=40 K=64 w f32"),
    ),
    Bug::new(
        "prelude.cuh",
        "fragments of the left operand change places",
        ["\"r\"(a[1]), \"r\"(a[2])", "\"r\"(a[2]), \"r\"(a[1])"],
        (BF16, "T=12 N=32 K=256"),
    )
    .nth(0),
    Bug::new(
        "prelude.cuh",
        "the low and the high half of a pair change places",
        [": \"f\"(high), \"f\"(low)", ": \"f\"(low), \"f\"(high)"],
        (BF16, "T=12 N=32 K=256"),
    ),
    // ffma.cu
    Bug::new(
        "ffma.cu",
        "no barrier before the first tile is read",
        ["    B::keep(bs[0], next_b);\n    __syncthreads();\n", "    B::keep(bs[0], next_b);\n"],
        (F32, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "ffma.cu",
        "no barrier between tiles",
        [
            "        B::keep(bs[now ^ 1], next_b);\n        __syncthreads();\n",
            "        B::keep(bs[now ^ 1], next_b);\n",
        ],
        (F32, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "ffma.cu",
        "the tile in use is overwritten",
        ["A::keep(as[now ^ 1], next_a)", "A::keep(as[now], next_a)"],
        (F32, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "ffma.cu",
        "columns are stored without the swizzle",
        ["lines[first + e][at(first + e, line)]", "lines[first + e][line]"],
        (F32, "T=12 N=32 K=256"),
    ),
    Bug::new(
        "ffma.cu",
        "rows beyond the matrix are read, and not used",
        ["major < majors && quad < QUADS", "quad < QUADS"],
        (F32, "T=13 N=33 K=17"),
    ),
    Bug::new(
        "ffma.cu",
        "elements beyond a row are read",
        ["e < count ? get(from[e]) : 0.0f", "get(from[e])"],
        (F32, "T=13 N=33 K=17"),
    ),
    Bug::new(
        "ffma.cu",
        "one row too many is stored",
        ["if (at_m >= M)", "if (at_m > M)"],
        (F32, "T=13 N=33 K=17"),
    ),
    // sum.cu
    Bug::new("sum.cu", "the last slice is not summed", ["s < slices", "s < slices - 1"], SLICED),
    Bug::new(
        "sum.cu",
        "slices are taken to lie closer",
        ["parts += stride)", "parts += stride - 4)"],
        SLICED,
    ),
    Bug::new(
        "sum.cu",
        "what y held is added though it is not wanted",
        ["(add && e < count ?", "(e < count ?"],
        SLICED,
    ),
    Bug::new(
        "sum.cu",
        "a slice is stored in place of the sum",
        ["x[e] += part[e]", "x[e] = part[e]"],
        SLICED,
    ),
    // Tiles that only a large product, or a GPU of few multiprocessors, takes.
    Bug::new(
        "mainloop.cuh",
        "tiles of more than 64 rows begin too early",
        ["(first + inside % height) * BM", "(first + inside % height) * min(BM, 64)"],
        (BF16, "T=130 N=376 K=504"),
    ),
    Bug::new(
        "mainloop.cuh",
        "the second wide tile of a row begins where one of half its width would",
        ["inside / height * BN", "inside / height * min(BN, 128)"],
        (BF16, "T=136 N=504 K=264"),
    ),
    Bug::new(
        "mainloop.cuh",
        "rows beyond 64 of a tile are not stored",
        ["i < BM * C::CHUNKS", "i < min(BM, 64) * C::CHUNKS"],
        (BF16, "T=130 N=136 K=376"),
    ),
    Bug::new(
        "mainloop.cuh",
        "the fourth warp of a wide tile multiplies the third one's columns",
        ["warp() % WARPS_N * (BN / WARPS_N)", "min(warp() % WARPS_N, BN > 128 ? 2 : 3) * (BN / WARPS_N)"],
        (BF16, "T=136 N=504 K=264"),
    ),
    Bug::new(
        "mainloop.cuh",
        "a ring of three stages is written one stage behind",
        ["write = (STAGES - 1) * STAGE;", "write = (STAGES == 3 ? 1 : STAGES - 1) * STAGE;"],
        (BF16, "T=136 N=504 K=264"),
    ),
    // Tiles whose columns are no power of two.
    Bug::new(
        "mainloop.cuh",
        "all of six warps copy, beyond the tile's lines too",
        ["if (COPIERS == THREADS || threadIdx.x < COPIERS) {", "{"],
        (BF16, "T=17 N=96 K=136"),
    ),
    Bug::new(
        "mainloop.cuh",
        "chunks of a line of 48 columns are exchanged beyond its end",
        ["? (chunks + 7) / 8 * 8 : chunks", "? chunks : chunks"],
        (BF16, "T=17 N=96 K=136"),
    ),
    Bug::new(
        "mainloop.cuh",
        "the room beyond 48 columns is stored too",
        ["            if (C::CHUNKS * WIDE<Out> > BN && chunk * WIDE<Out> >= BN) continue;\n", ""],
        (BF16, "T=16 N=96 K=136"),
    ),
    Bug::new(
        "gemm/gated.cu",
        "chunks of gate beyond its columns are stored",
        ["        if (LINE > CHUNKS && chunk >= CHUNKS) continue;\n", ""],
        (BF16, "T=20 N=48 K=72 gated"),
    ),
    Bug::new(
        "tile.cuh",
        "the last of four elements at a ragged end is left out",
        ["            if (i < count) {\n", "            if (i < count - (count == 4)) {\n"],
        (BF16, "T=4 N=65 K=76"),
    ),
    Bug::new(
        "tile.cuh",
        "the last of two elements at a ragged end is left out",
        ["            if (i < count) {\n", "            if (i < count - (count == 2)) {\n"],
        (BF16, "T=4 N=65 K=74"),
    ),
    Bug::new(
        "gemm.cu",
        "slices of the products of a backward all begin at 0",
        ["k = part * slice", "k = (FORM == NT ? part : 0) * slice"],
        (BF16, "T=1032 N=8 K=24"),
    ),
];
