// Dropout masks: which channels of a token are kept.
//
// math    with g the channel's index in the unsharded input, it is kept when half g % 8, the low half of a word first, of
//         Philox 4x32-7 of (g / 8, token, site, step) under the seed is at least `threshold`
#pragma once

// Bit e is set when channel 8 · block + e is kept.
__device__ inline u32 keep_bits(u64 seed, u32 step, u32 site, u32 threshold, u32 token, u32 block) {
    Words words = random_words<7>(seed, step, site, token, block);
    u32 limit = threshold << 16, bits = 0; // a half is compared at the top of a word, where what is below decides nothing
#pragma unroll
    for (int e = 0; e < 4; e++)
        bits |= u32(words.at[e] << 16 >= limit) << 2 * e | u32(words.at[e] >= limit) << (2 * e + 1);
    return bits;
}
