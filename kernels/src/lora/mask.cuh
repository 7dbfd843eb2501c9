// Words of a dropout mask, which lora_s makes and the backward reads again.
//
// math    keep.cuh says which channels are kept; a word holds 32 of them, from a multiple of 32 of x's channels on
// layout  channels 2i and 2i + 1 of a word have bit i % 8 of its bytes 2 (i / 8) and 2 (i / 8) + 1: one shift brings both
//         bits to the signs of two bytes, from which one permutation makes a mask of two elements
#pragma once
#include "keep.cuh"

// Bit of a word's channel.
__device__ inline int mask_bit(int channel) { return channel / 16 * 16 + channel % 2 * 8 + channel % 16 / 2; }

// Moves the even bits of each half to its low byte, and the odd ones to its high byte.
__device__ inline u32 split_pairs(u32 x) {
    u32 t = (x ^ x >> 1) & 0x22222222;
    x ^= t ^ t << 1;
    t = (x ^ x >> 2) & 0x0c0c0c0c;
    x ^= t ^ t << 2;
    t = (x ^ x >> 4) & 0x00f000f0;
    return x ^ t ^ t << 4;
}

// Comparison of both halves of a word with the threshold, whose results become the top bits of their halves.
struct Halves {
    static constexpr u32 TOPS = 0x80008000;
    u32 below, either; // the threshold without its top bit, twice; all ones if that bit is 0

    __device__ Halves(u32 threshold)
        : below((threshold & 0x7fff) * 0x10001), either(threshold < 0x8000 ? 0xffffffff : 0) {}

    // Moves each half of `bits` down by one, and puts the half's result on top. A half reaches the threshold by its top bit
    // or by the others, or needs both if the threshold has the top bit too: the majority of three.
    __device__ u32 push(u32 bits, u32 word) const {
        u32 rest = (word | TOPS) - below, reached, next; // no half borrows from the other
        asm("lop3.b32 %0, %1, %2, %3, 0xe8;" : "=r"(reached) : "r"(word), "r"(rest), "r"(either));
        asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(next) : "r"(reached), "r"(bits >> 1), "r"(TOPS));
        return next;
    }
};

// N words, each of 32 channels, from `channel` on, counted in the unsharded input.
template <int N>
__device__ inline void mask_words(u32 (&bits)[N], u64 seed, u32 step, u32 site, u32 threshold, u32 token, u32 channel) {
    u32 block = channel / 8;
    // Blocks of eight channels need not begin where words do: then each word takes the end of one and the start of another.
    if (u32 skip = channel % 8) {
        auto keep = [&](u32 b) { return keep_bits(seed, step, site, threshold, token, block + b); };
        u32 first = keep(0);
#pragma unroll
        for (int w = 0; w < N; w++) {
            u32 word = first;
#pragma unroll
            for (int b = 1; b < 4; b++) word |= keep(4 * w + b) << 8 * b;
            first = keep(4 * w + 4);
            bits[w] = split_pairs(word >> skip | first << (32 - skip));
        }
        return;
    }
    Halves halves(threshold);
#pragma unroll
    for (int w = 0; w < N; w++) {
        u32 word = 0;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            Words words = channel_words(seed, step, site, token, block + 4 * w + b);
#pragma unroll
            for (int e = 0; e < 4; e++) word = halves.push(word, words.at[e]);
        }
        bits[w] = __byte_perm(word, 0, 0x3120); // even channels have the low half, odd ones the high half
    }
}

// Spreads the signs of four of the bytes of a and b over a byte each. `select` has 8 plus the byte's number for each of
// the four, the lowest first; b's bytes are numbers 4 to 7.
__device__ inline u32 spread_signs(u32 a, u32 b, u32 select) {
    u32 y;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(select));
    return y;
}
