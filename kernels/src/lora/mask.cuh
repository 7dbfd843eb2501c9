// Words of a dropout mask, which lora_s makes and the backward reads again.
//
// math    keep.cuh says which channels are kept; a word holds 32 of them, from a multiple of 32 of x's channels on
// layout  a byte holds eight channels, the even ones in its low half and the odd ones in its high half: two shifts bring the
//         bits of 2i and 2i + 1 to the signs of bytes, from which one permutation makes a mask of two elements
#pragma once
#include "keep.cuh"

// Bit of a word's channel.
__device__ inline int mask_bit(int channel) { return channel / 8 * 8 + channel % 2 * 4 + channel % 8 / 2; }

// Moves the even bits of each byte to its low half, and the odd ones to its high half.
__device__ inline u32 split_pairs(u32 x) {
    u32 t = (x ^ x >> 1) & 0x22222222;
    x ^= t ^ t << 1;
    t = (x ^ x >> 2) & 0x0c0c0c0c;
    return x ^ t ^ t << 2;
}

// Comparison of both halves of words with a threshold below 2¹⁵.
struct Halves {
    static constexpr u32 TOPS = 0x80008000;
    u32 below; // the threshold, twice

    // Adds a byte's bits of the words' channels to `bits`, from bit 7 on.
    __device__ u32 add(u32 bits, const Words &words) const {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            u32 word = words.at[e], rest = (word | TOPS) - below, reached; // no half borrows from the other
            // A half reaches the threshold by its top bit or by the others: (word | rest) & TOPS. Its 128 becomes the bit.
            asm("lop3.b32 %0, %1, %2, %3, 0xa8;" : "=r"(reached) : "r"(word), "r"(rest), "r"(TOPS));
            asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(bits) : "r"(reached), "r"(0x10000100u << e));
        }
        return bits;
    }
};

// True where words of a mask are whole blocks of eight channels, whose halves `Halves` compares.
__device__ inline bool in_whole_blocks(u32 threshold, u32 channel) { return channel % 8 == 0 && threshold < 0x8000; }

// N words, each of the random words of four blocks: of(0) and on.
template <int N, typename Of> __device__ inline void compare_blocks(u32 (&bits)[N], u32 threshold, Of of) {
    Halves halves = {threshold * 0x10001};
#pragma unroll
    for (int w = 0; w < N; w++) {
        u32 high = 0;
#pragma unroll
        for (int b = 3; b > 0; b--) high = halves.add(high << 8, of(4 * w + b));
        bits[w] = 2 * high + (halves.add(0, of(4 * w)) >> 7);
    }
}

// N words, each of 32 channels, from `channel` on, counted in the unsharded input.
template <int N>
__device__ inline void mask_words(u32 (&bits)[N], const ChannelWords &random, u32 threshold, u32 channel) {
    u32 block = channel / 8, skip = channel % 8;
    if (in_whole_blocks(threshold, channel)) {
        compare_blocks(bits, threshold, [&](int b) { return random.of(block + b); });
        return;
    }
    // Blocks of eight channels need not begin where words do: then each word takes the end of one and the start of another.
    u32 first = keep_bits(random, threshold, block);
#pragma unroll
    for (int w = 0; w < N; w++) {
        u32 word = first;
#pragma unroll
        for (int b = 1; b < 4; b++) word |= keep_bits(random, threshold, block + 4 * w + b) << 8 * b;
        first = keep_bits(random, threshold, block + 4 * w + 4);
        bits[w] = split_pairs(skip == 0 ? word : word >> skip | first << (32 - skip));
    }
}

// Spreads the signs of four of the bytes of a and b over a byte each. `select` has 8 plus the byte's number for each of
// the four, the lowest first; b's bytes are numbers 4 to 7.
__device__ inline u32 spread_signs(u32 a, u32 b, u32 select) {
    u32 y;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(select));
    return y;
}
