// Dropout masks: which channels of a token are kept.
//
// math    with g the channel's index in the unsharded input, it is kept when half g % 8, the low half of a word first, of
//         Philox 4x32-7 of (g / 8, token, site, step) under the seed is at least `threshold`
#pragma once

// Sets `bit` where x ≥ limit: two instructions, which a comparison made a number would not be.
__device__ inline void set_if_at_least(u32 &bits, u32 bit, u32 x, u32 limit) {
    asm("{ .reg .pred p; setp.ge.u32 p, %1, %2; @p or.b32 %0, %0, %3; }" : "+r"(bits) : "r"(x), "r"(limit), "r"(bit));
}

// The random words of a token's channels. What blocks of eight channels share of the first two rounds is made once: only
// the first word of four differs from block to block. What tokens share of the first three is made apart.
struct ChannelWords {
    u64 seed;
    u32 first, second, third, fourth;

    __device__ ChannelWords(u64 seed, u32 step, u32 site, u32 token) : seed(seed) {
        u32 k0 = u32(seed), k1 = u32(seed >> 32), low, high, a_high;
        multiply_wide(low, high, PHILOX_C, site);
        multiply_wide(fourth, a_high, PHILOX_A, xor3(high, token, k0));
        first = step ^ k1;
        second = low ^ (k0 + PHILOX_KEY0);
        third = a_high ^ (k1 + PHILOX_KEY1);
    }

    // What channels 8 · block and on have of any token.
    __device__ Words of_tokens(u32 block) const {
        u32 a_low, a_high, c_low, c_high, p_low, p_high;
        multiply_wide(a_low, a_high, PHILOX_A, block);
        multiply_wide(c_low, c_high, PHILOX_C, a_high ^ first);
        multiply_wide(p_low, p_high, PHILOX_A, c_high ^ second);
        return {{a_low, c_low, p_high, p_low}};
    }

    // Of channels that have `shared` of any token.
    __device__ Words of(const Words &shared) const {
        u32 k0 = u32(seed) + 2 * PHILOX_KEY0, k1 = u32(seed >> 32) + 2 * PHILOX_KEY1, low, high;
        multiply_wide(low, high, PHILOX_C, shared.at[0] ^ third);
        Words x = {{xor3(high, shared.at[1], k0), low, xor3(shared.at[2], fourth, k1), shared.at[3]}};
        return philox_rounds<3, 7>(x, seed);
    }

    // Of channels 8 · block and on.
    __device__ Words of(u32 block) const { return of(of_tokens(block)); }
};

// Bit e is set when channel 8 · block + e is kept.
__device__ inline u32 keep_bits(const ChannelWords &random, u32 threshold, u32 block) {
    Words words = random.of(block);
    u32 limit = threshold << 16, bits = 0; // a half is compared at the top of a word, where what is below decides nothing
#pragma unroll
    for (int e = 0; e < 4; e++) {
        set_if_at_least(bits, 1u << 2 * e, words.at[e] << 16, limit);
        set_if_at_least(bits, 2u << 2 * e, words.at[e], limit);
    }
    return bits;
}
