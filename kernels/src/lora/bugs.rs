//! Bugs that the checks must detect: `lora.cu`, `dx.cu`, `dropout.cu`, and what only adapters use of the products.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16, F32};

const THREE: (DType, &str) = (BF16, "T=5 C=33 R=3 N=[7, 20, 1] p=0");
const THREE_F32: (DType, &str) = (F32, "T=5 C=33 R=3 N=[7, 20, 1] p=0");
const WIDE: (DType, &str) = (BF16, "T=7 C=520 R=20 N=[264] p=0");
const DROPPED: (DType, &str) = (BF16, "T=37 C=70 R=16 N=[48, 33] p=0.05");
const CHOSEN: (DType, &str) = (BF16, "T=9 C=40 R=3 N=[7, 16] adapters=3");

pub const BUGS: &[Bug] = &[
    // lora.cu
    Bug::new(
        "lora.cu",
        "the second slab takes the first one's columns of S",
        ["s_pitch + r + 8 * chunk", "s_pitch + 8 * chunk"],
        WIDE,
    ),
    Bug::new(
        "lora.cu",
        "every linear takes the first one's S",
        ["s += pick(place.target, at0, at1, at2, at3)", "s += at0"],
        THREE,
    ),
    Bug::new(
        "lora.cu",
        "every linear has the first one's B",
        ["pick(place.target, b0, b1, b2, b3)", "b0"],
        THREE,
    ),
    Bug::new(
        "lora.cu",
        "every linear has the first one's weight",
        ["{pick(place.target, w0, w1, w2, w3), C", "{w0, C"],
        THREE,
    ),
    Bug::new(
        "lora.cu",
        "rows take the adapter before theirs",
        ["choice[row] == g);", "choice[row] == g + 1);"],
        CHOSEN,
    ),
    Bug::new("lora.cu", "every adapter has the first one's B", ["{b + i64(g) * N * R", "{b"], CHOSEN),
    Bug::new(
        "lora.cu",
        "rows take the S of every adapter of their tile",
        ["row < T && (!choice || choice[row] == g)", "row < T"],
        CHOSEN,
    ),
    Bug::new(
        "mainloop.cuh",
        "a slab is not waited for",
        [
            "        copy_wait<0>();\n        __syncthreads();\n        Fragments f;",
            "        __syncthreads();\n        Fragments f;",
        ],
        WIDE,
    )
    .quiet(),
    Bug::new(
        "mainloop.cuh",
        "no barrier between a slab's copies and its fragments",
        [
            "        copy_wait<0>();\n        __syncthreads();\n        Fragments f;",
            "        copy_wait<0>();\n        Fragments f;",
        ],
        WIDE,
    ),
    Bug::new(
        "mainloop.cuh",
        "no barrier between a slab and the next",
        ["        multiply(acc, f);\n        __syncthreads();\n", "        multiply(acc, f);\n"],
        WIDE,
    ),
    Bug::new(
        "mainloop.cuh",
        "a slab replaces the first stage",
        ["u32 to_a = shared + (STAGES - 1) * STAGE", "u32 to_a = shared"],
        WIDE,
    ),
    Bug::new(
        "tile.cuh",
        "f32 masters: the second half of a fragment is the first",
        ["from ^ (32 * half)", "from"],
        WIDE,
    ),
    Bug::new(
        "tile.cuh",
        "f32 masters, backward: pairs along K are one element twice",
        ["load_shared((from ^ 32) + PITCH)", "load_shared(from)"],
        DROPPED,
    ),
    // dx.cu
    Bug::new(
        "dx.cu",
        "dropped channels keep LoRA's gradient",
        ["    if (mask) drop(", "    if (false) drop("],
        DROPPED,
    ),
    Bug::new("dx.cu", "kept channels are not scaled up", ["? x * up : 0.0f", "? x : 0.0f"], DROPPED),
    Bug::new("dx.cu", "the next linear's dS begins where R ends", ["at += padded;", "at += R;"], THREE),
    Bug::new(
        "dx.cu",
        "words of the mask are read of rows beyond the last",
        ["t < T && w < words ? 4 : 0", "w < words ? 4 : 0"],
        DROPPED,
    ),
    Bug::new(
        "dx.cu",
        "the mask covers the plain product too",
        ["    if (mask) drop(acc, block, up);\n", ""],
        DROPPED,
    ),
    Bug::new(
        "dx.cu",
        "the first tiles of dy replace words of the mask that others still read",
        ["    __syncthreads(); // the words lie where the first tiles of dy and W come\n", ""],
        DROPPED,
    ),
    Bug::new(
        "dx.cu",
        "words of the mask are copied from the first row of tiles",
        ["t = block.m + row, w", "t = row, w"],
        (BF16, "T=136 C=504 R=20 N=[376, 72] p=0.1"),
    ),
    // mask.cuh and dropout.cu
    Bug::new(
        "mask.cuh",
        "the fifth block is not read",
        ["word >> skip | first << (32 - skip)", "word >> skip"],
        (F32, "T=9 C=70 from 9 R=4 N=[12] p=0.3"),
    ),
    Bug::new(
        "mask.cuh",
        "blocks are counted from the word",
        ["block = channel / 8", "block = channel / 32"],
        (BF16, "T=19 C=260 R=8 N=[64] p=0.5"),
    ),
    Bug::new(
        "mask.cuh",
        "a threshold of more than half is compared as one of less",
        ["channel % 8 == 0 && threshold < 0x8000", "channel % 8 == 0"],
        (BF16, "T=9 C=64 R=4 N=[16] p=0.75"),
    ),
    Bug::new(
        "mask.cuh",
        "a channel that reaches the threshold by its top bit alone is dropped",
        ["\"=r\"(reached) : \"r\"(word)", "\"=r\"(reached) : \"r\"(rest)"],
        (BF16, "T=65 C=72 R=16 N=[136, 24, 40] p=0.1"),
    ),
    Bug::new(
        "mask.cuh",
        "the low half borrows from the high one",
        ["(word | TOPS) - below", "word - below"],
        (BF16, "T=37 C=70 R=16 N=[48, 33] p=0.05"),
    ),
    Bug::new(
        "mask.cuh",
        "channels of a word whose blocks begin with it lie in their order",
        ["split_pairs(skip == 0 ? word :", "skip == 0 ? word : split_pairs("],
        (BF16, "T=19 C=260 R=8 N=[64] p=0.5"),
    ),
    Bug::new(
        "mask.cuh",
        "the next word begins with the first one's block",
        [
            "        first = keep_bits(random, threshold, block + 4 * w + 4);\n        bits[w]",
            "        bits[w]",
        ],
        (BF16, "T=9 C=70 from 9 R=4 N=[12] p=0.3"),
    ),
    Bug::new(
        "dropout.cu",
        "kept channels are not scaled up",
        ["(x ? x[i] : y[i]) * up", "(x ? x[i] : y[i])"],
        (F32, "T=37 C=70 R=16 N=[48, 33] p=0.05"),
    ),
    Bug::new(
        "dropout.cu",
        "rows of the mask are rounded down",
        ["i / C * ((C + 31) / 32)", "i / C * (C / 32)"],
        (F32, "T=37 C=70 R=16 N=[48, 33] p=0.05"),
    ),
    Bug::new(
        "dropout.cu",
        "every row takes every adapter",
        ["chosen == adapter ? s[i] * scale : 0.0f", "s[i] * scale"],
        (F32, "T=9 C=40 R=3 N=[7, 16] adapters=3"),
    ),
    // gemm's sum.cu where it serves adapters
    Bug::new("sum.cu", "sums are not scaled by alpha/r", ["x[e] = scale * x[e]", "x[e] = x[e]"], THREE_F32),
    Bug::new(
        "sum.cu",
        "four columns are stored where R has fewer",
        ["            if (e < count) y[e] = put<E>(x[e]);", "            y[e] = put<E>(x[e]);"],
        THREE_F32,
    ),
    Bug::new(
        "group.cuh",
        "the fourth linear is the third",
        ["i == 2 ? x2 : x3", "x2"],
        (BF16, "T=21 C=72 R=5 N=[24, 40, 16, 33] p=0.2"),
    ),
    Bug::new(
        "dx.cu",
        "every 32 columns of a wide tile are masked as its first ones",
        ["word + j / 4)", "word)"],
        (BF16, "T=136 C=504 R=20 N=[376, 72] p=0.1"),
    ),
    Bug::new(
        "low_rank.cuh",
        "adapters of rows beyond the sixteenth of a tile are overlooked",
        ["threadIdx.x < rows", "threadIdx.x < 16"],
        (BF16, "T=64 C=72 R=4 N=[40, 9] adapters=63"),
    ),
    Bug::new(
        "low_rank.cuh",
        "adapters beyond 64 are overlooked",
        ["mine > after ? mine", "mine > after && mine < 64 ? mine"],
        (BF16, "T=133 C=136 R=4 N=[260] adapters=130"),
    ),
    Bug::new(
        "low_rank.cuh",
        "adapters of the first warp's rows alone",
        ["for (int w = 0; w < blockDim.x / 32; w++) least", "for (int w = 0; w < 1; w++) least"],
        (BF16, "T=64 C=72 R=4 N=[40, 9] adapters=63"),
    ),
    Bug::new(
        "low_rank.cuh",
        "the next adapters of a row's block are read before all have read the last",
        ["        __syncthreads(); // the parts of an earlier call have been read\n", ""],
        CHOSEN,
    ),
    Bug::new(
        "keep.cuh",
        "masks repeat after 65536 steps",
        ["first = step ^ k1", "first = (step & 0xffff) ^ k1"],
        (BF16, "T=37 C=70 R=16 N=[48, 33] p=0.05"),
    ),
    Bug::new(
        "keep.cuh",
        "masks repeat after 65536 tokens",
        ["xor3(high, token, k0)", "xor3(high, token & 0xffff, k0)"],
        (BF16, "T=37 C=70 R=16 N=[48, 33] p=0.05"),
    ),
];
