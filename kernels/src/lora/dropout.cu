// Dropout masks, and the elementwise kernels of LoRA on f32 activations.
//
// math    the mask's words are those of mask.cuh, which says where the bit of a channel is
// launch  lora_mask: one thread per 32 channels; the others: one thread per element
#include "prelude.cuh"
#include "mask.cuh"

extern "C" __global__ void lora_mask(u32 *mask,         // (T, ⌈C/32⌉)
                                     const int *tokens, // (T): id of each token
                                     u64 seed, u32 step, u32 site, u32 threshold, int first, int T, int C) {
    int words = (C + 31) / 32;
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(T) * words) return;
    u32 word[1];
    mask_words(word, ChannelWords(seed, step, site, tokens[i / words]), threshold, first + i % words * 32);
    mask[i] = word[0];
}

// y = x, or the old y where x is null, with dropped channels zeroed and the others scaled by `up`.
extern "C" __global__ void lora_drop(float *y,        // (T, C)
                                     const float *x,  // (T, C), or null
                                     const u32 *mask, // (T, ⌈C/32⌉)
                                     float up, int T, int C) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= i64(T) * C) return;
    int c = i % C;
    bool keep = mask[i / C * ((C + 31) / 32) + c / 32] >> mask_bit(c % 32) & 1;
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
