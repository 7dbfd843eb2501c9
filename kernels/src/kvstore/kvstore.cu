// Writes rows of new tokens into the pages of the KV cache; rotates keys if requested.
//
// math    pages_{slot_t} = rows_t; or k_pages_{slot_t} = rope(k_t) and v_pages_{slot_t} = v_t in one launch
// launch  one block per token
// layout  slot s is offset s mod S of page s div S; a head of a page is contiguous, so the heads of a token lie S·D
//         elements apart
// options E storage, VEC elements moved by one access: 16 bytes, or 1 where heads or half heads are not a multiple of
//         that
#include "rope.cuh"

// Index of head 0 of token t in pages (N, K, S, D).
__device__ inline i64 place(const int *slots, int t, int N, int K, int S, int D) {
    int slot = slots[t];
    if (slot < 0 || slot >= N * S) __trap();
    int page = slot / S;
    return (i64(page) * K * S + slot - page * S) * D;
}

__device__ inline void copy_heads(E *to,         // (K, …): D elements of every S·D
                                  const E *from, // (K, D)
                                  int K, int S, int D) {
    for (int c = threadIdx.x * VEC; c < K * D; c += blockDim.x * VEC) {
        int head = c / D;
        E *at = to + i64(head) * S * D + c - head * D;
        *reinterpret_cast<Pack<E, VEC> *>(at) = *reinterpret_cast<const Pack<E, VEC> *>(from + c);
    }
}

extern "C" __global__ void kvstore(E *pages,         // (N, K, S, D)
                                   const E *rows,    // (T, K·D)
                                   const int *slots, // (T)
                                   int N, int K, int S, int D) {
    i64 t = blockIdx.x;
    copy_heads(pages + place(slots, t, N, K, S, D), rows + t * K * D, K, S, D);
}

extern "C" __global__ void rope_kvstore(E *k_pages,           // (N, K, S, D)
                                        E *v_pages,           // (N, K, S, D)
                                        const E *k,           // (T, K·D)
                                        const E *v,           // (T, K·D)
                                        const int *positions, // (T)
                                        const float *table,   // (P, D): cos, then sin
                                        const int *slots,     // (T)
                                        int P, int N, int K, int S, int D) {
    i64 t = blockIdx.x, width = K * D;
    i64 at = place(slots, t, N, K, S, D);
    turn(k_pages + at, k + t * width, table, positions[t], 1.0f, K, D, P, i64(S) * D);
    copy_heads(v_pages + at, v + t * width, K, S, D);
}
