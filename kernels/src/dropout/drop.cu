// Dropout: y = x ⊙ mask / (1 − p).
//
// math    channel c of a token is kept when word c % 4 of Philox (c / 4, token, site, step) under the seed is at least
//         p; c counts from `first`, the index of x's first channel in the unsharded input
// launch  one thread per VEC channels
// options E storage, VEC 4 where C and `first` are multiples of 4, else 1
#include "prelude.cuh"

// The word of a channel among its four. Indexing would put them into local memory.
__device__ inline u32 own(const Words &words, u32 channel) {
    u32 low = channel & 1 ? words.at[1] : words.at[0], high = channel & 1 ? words.at[3] : words.at[2];
    return channel & 2 ? high : low;
}

extern "C" __global__ void dropout(E *y,              // (T, C)
                                   const E *x,        // (T, C)
                                   const int *tokens, // (T): id of each token
                                   u64 seed, u32 step, u32 site, float p, float up, int first, int T, int C) {
    i64 i = flat<VEC>();
    if (i >= i64(T) * C) return;
    u32 channel = first + i % C;
    Words words = random_words(seed, step, site, tokens[i / C], channel / 4);
    float v[VEC];
    load(v, x + i);
#pragma unroll
    for (int e = 0; e < VEC; e++) v[e] = unit(VEC > 1 ? words.at[e] : own(words, channel)) < p ? 0.0f : v[e] * up;
    store(y + i, v);
}
