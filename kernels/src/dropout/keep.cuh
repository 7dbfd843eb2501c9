// Dropout masks: which channels of a token are kept.
//
// math    with g the channel's index in the unsharded input, it is kept when half g % 8, the low half of a word first, of
//         Philox 4x32-7 of (g / 8, token, site, step) under the seed is at least `threshold`
#pragma once

// Sets `bit` where x ≥ limit: two instructions, which a comparison made a number would not be.
__device__ inline void set_if_at_least(u32 &bits, u32 bit, u32 x, u32 limit) {
    asm("{ .reg .pred p; setp.ge.u32 p, %1, %2; @p or.b32 %0, %0, %3; }" : "+r"(bits) : "r"(x), "r"(limit), "r"(bit));
}

// The random words of channels 8 · block and on.
__device__ inline Words channel_words(u64 seed, u32 step, u32 site, u32 token, u32 block) {
    return random_words<7>(seed, step, site, token, block);
}

// Bit e is set when channel 8 · block + e is kept.
__device__ inline u32 keep_bits(u64 seed, u32 step, u32 site, u32 threshold, u32 token, u32 block) {
    Words words = channel_words(seed, step, site, token, block);
    u32 limit = threshold << 16, bits = 0; // a half is compared at the top of a word, where what is below decides nothing
#pragma unroll
    for (int e = 0; e < 4; e++) {
        set_if_at_least(bits, 1u << 2 * e, words.at[e] << 16, limit);
        set_if_at_least(bits, 2u << 2 * e, words.at[e], limit);
    }
    return bits;
}
