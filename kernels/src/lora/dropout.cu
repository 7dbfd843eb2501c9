// Dropout masks, and the elementwise kernels of LoRA on f32 activations.
//
// math    bit (t, c) is set when channel c of token t is kept: with g = first + c, when word g % 4 of Philox 4x32-10
//         (Salmon et al., SC 2011) of (g / 4, token, site, step) under the seed is at least p
// launch  lora_mask: one thread per 32 channels; the others: one thread per element
#include "prelude.cuh"

__device__ inline void philox(u32 (&c)[4], u64 seed) {
    u32 k0 = u32(seed), k1 = u32(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 a = u64(0xD2511F53u) * c[0], b = u64(0xCD9E8D57u) * c[2];
        c[0] = u32(b >> 32) ^ c[1] ^ k0;
        c[1] = u32(b);
        c[2] = u32(a >> 32) ^ c[3] ^ k1;
        c[3] = u32(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

extern "C" __global__ void lora_mask(u32 *mask,         // (T, ⌈C/32⌉)
                                     const int *tokens, // (T): id of each token
                                     u64 seed, u32 step, u32 site, float p, int first, int T, int C) {
    int words = (C + 31) / 32;
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(T) * words) return;
    // Blocks of four channels need not begin where the word does: up to nine of them meet its 32.
    u32 token = tokens[i / words], channel = first + i % words * 32, skip = channel % 4;
    u64 bits = 0;
    for (int b = 0; b < 8 + (skip > 0); b++) {
        u32 c[4] = {channel / 4 + b, token, site, step};
        philox(c, seed);
#pragma unroll
        for (int e = 0; e < 4; e++) bits |= u64((c[e] >> 8) * (1.0f / (1 << 24)) >= p) << (4 * b + e);
    }
    mask[i] = u32(bits >> skip);
}

// y = x, or the old y where x is null, with dropped channels zeroed and the others scaled by `up`.
extern "C" __global__ void lora_drop(float *y,        // (T, C)
                                     const float *x,  // (T, C), or null
                                     const u32 *mask, // (T, ⌈C/32⌉)
                                     float up, int T, int C) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(T) * C) return;
    int c = i % C;
    bool keep = mask[i / C * ((C + 31) / 32) + c / 32] >> c % 32 & 1;
    y[i] = keep ? (x ? x[i] : y[i]) * up : 0.0f;
}

// s *= scale in the rows that select `adapter`, zero in the others.
extern "C" __global__ void lora_choose(float *s,          // (T, R)
                                       const int *choice, // (T)
                                       int adapter, int adapters, float scale, int T, int R) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(T) * R) return;
    int chosen = choice[i / R];
    if (chosen >= adapters) __trap();
    s[i] = chosen == adapter ? s[i] * scale : 0.0f;
}
