//! Bugs that the checks of `dropout` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "drop.cu",
        "channels count from the part's first",
        ["channel = first + i % C", "channel = i % C"],
        (F32, "T=9 C=8 from 6 p=0.5"),
    ),
    Bug::new(
        "drop.cu",
        "the last channels are not bounded",
        ["    if (i >= i64(T) * C) return;\n", ""],
        (BF16, "T=3 C=17 from 0 p=0.3"),
    ),
    Bug::new(
        "drop.cu",
        "channels within a block take the first one's bits",
        ["channel / 8) >> channel % 8", "channel / 8)"],
        (BF16, "T=3 C=17 from 0 p=0.3"),
    ),
    Bug::new(
        "drop.cu",
        "what is kept is not scaled up",
        ["v[e] * up", "v[e]"],
        (BF16, "T=70 C=264 from 0 p=0.05"),
    ),
    Bug::new(
        "drop.cu",
        "tokens are known by their place",
        ["tokens[i / C]", "i / C"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "drop.cu",
        "the second access takes the bits of the first",
        ["bits >> (from + e)", "bits >> e"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "keep.cuh",
        "the high half of a word comes first",
        ["1u << 2 * e, words.at[e] << 16", "2u << 2 * e, words.at[e] << 16"],
        (BF16, "T=3 C=24 from 13 p=0.4"),
    ),
    Bug::new(
        "keep.cuh",
        "both halves of a word are the low one",
        ["2u << 2 * e, words.at[e],", "2u << 2 * e, words.at[e] << 16,"],
        (BF16, "T=70 C=264 from 0 p=0.05"),
    ),
    Bug::new(
        "keep.cuh",
        "a channel at the threshold is dropped",
        ["setp.ge.u32", "setp.gt.u32"],
        (F32, "T=70 C=264 from 0 p=0.05"),
    ),
    Bug::new(
        "keep.cuh",
        "ten rounds, as sampling has",
        ["philox_rounds<3, 7>", "philox_rounds<3, 10>"],
        (F32, "T=9 C=8 from 6 p=0.5"),
    ),
    Bug::new(
        "keep.cuh",
        "the upper half of a seed is ignored",
        ["k1 = u32(seed >> 32), low", "k1 = 0, low"],
        (F32, "T=3 C=17 from 0 p=0.3"),
    ),
    Bug::new(
        "keep.cuh",
        "the second round has the first one's key",
        ["low ^ (k0 + PHILOX_KEY0)", "low ^ k0"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "keep.cuh",
        "the second round leaves out the second key",
        ["a_high ^ (k1 + PHILOX_KEY1)", "a_high"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "keep.cuh",
        "the third round has the second one's key",
        ["u32(seed) + 2 * PHILOX_KEY0", "u32(seed) + PHILOX_KEY0"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "keep.cuh",
        "the third round takes the token's word twice",
        ["xor3(shared.at[2], fourth, k1)", "xor3(third, fourth, k1)"],
        (F32, "T=5 C=64 from 8 p=0.1"),
    ),
    Bug::new(
        "drop.cu",
        "channels are counted in 16 bits",
        ["u32 channel = first + i % C;", "u32 channel = (first + i % C) & 0xffff;"],
        (F32, "T=9 C=70 from 70003 p=0.2"),
    ),
];
