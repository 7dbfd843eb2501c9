//! Bugs that the checks must detect: `decode.cu`, whose blocks wait for others' parts of S.

use crate::bug::Bug;
use codelsi_engine::DType::{self, BF16};

const SLICES: (DType, &str) = (BF16, "T=16 C=1032 N,R=[(96, 16), (48, 16), (48, 16)] p=0 decoded");
const RANKS: (DType, &str) = (BF16, "T=1 C=72 N,R=[(40, 4), (24, 20), (16, 8), (33, 36)] p=0 decoded");
const CHOSEN: (DType, &str) = (BF16, "T=16 C=520 N,R=[(40, 4), (24, 20), (16, 8)] adapters=16 decoded");

pub const BUGS: &[Bug] = &[
    Bug::new(
        "lora/decode.cu",
        "no block waits for S",
        ["                    if (threadIdx.x == 0) wait_for_turn(turns, makers);\n", ""],
        SLICES,
    ),
    Bug::new(
        "lora/decode.cu",
        "the last part of S is not waited for",
        ["wait_for_turn(turns, makers)", "wait_for_turn(turns, makers - 1)"],
        SLICES,
    ),
    Bug::new(
        "lora/decode.cu",
        "the turns of a call are those of the next",
        ["    if (is_last(turns + 1, gridDim.x - 1) && threadIdx.x == 0) atomicExch(turns, 0);\n", ""],
        SLICES,
    ),
    Bug::new(
        "lora/decode.cu",
        "the last part of S is not added",
        ["slice < slices; slice++", "slice < max(slices - 1, 1); slice++"],
        SLICES,
    ),
    Bug::new(
        "lora/decode.cu",
        "every part of S is the first slice's",
        ["parts + i64(part) * T * pitch", "parts"],
        SLICES,
    ),
    Bug::new(
        "lora/decode.cu",
        "every linear takes the first one's S",
        ["i < place.target; i++", "i < 0; i++"],
        RANKS,
    ),
    Bug::new(
        "lora/decode.cu",
        "the second slab takes the first one's columns of S",
        ["s_at + r, slices", "s_at, slices"],
        RANKS,
    ),
    Bug::new(
        "lora/decode.cu",
        "rows take the S of every adapter",
        ["row < T && (!choice || choice[row] == g)", "row < T"],
        CHOSEN,
    ),
    Bug::new("lora/decode.cu", "every adapter has the first one's A", ["+ i64(adapter) * R * C", ""], CHOSEN),
    Bug::new("lora/decode.cu", "every adapter has the first one's B", ["{b + i64(g) * N * R", "{b"], CHOSEN),
    Bug::new(
        "lora/decode.cu",
        "S of the first adapter of the rows alone",
        ["chosen.nth(rest / columns)", "chosen.nth(0)"],
        CHOSEN,
    ),
];
