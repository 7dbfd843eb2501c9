// Dropout: y = x ⊙ mask / (1 − p).
//
// math    see keep.cuh; channels count from `first`, the index of x's first channel in the unsharded input
// launch  one thread per VEC channels
// options E storage, VEC 8 where C and `first` are multiples of 8, else 1
#include "prelude.cuh"
#include "keep.cuh"

extern "C" __global__ void dropout(E *y,              // (T, C)
                                   const E *x,        // (T, C)
                                   const int *tokens, // (T): id of each token
                                   u64 seed, u32 step, u32 site, u32 threshold, float up, int first, int T, int C) {
    i64 i = flat<VEC>();
    if (i >= i64(T) * C) return;
    u32 channel = first + i % C;
    u32 bits = keep_bits(ChannelWords(seed, step, site, tokens[i / C]), threshold, channel / 8) >> channel % 8;
    constexpr int PACK = VEC < WIDE<E> ? VEC : WIDE<E>;
#pragma unroll
    for (int from = 0; from < VEC; from += PACK) {
        float v[PACK];
        load(v, x + i + from);
#pragma unroll
        for (int e = 0; e < PACK; e++) v[e] = bits >> (from + e) & 1 ? v[e] * up : 0.0f;
        store(y + i + from, v);
    }
}
