// Writes rows of new tokens into the pages of the KV cache; rotates keys if requested.
//
// math    pages_{slot_t} = rows_t; or k_pages_{slot_t} = rope(k_t) and v_pages_{slot_t} = v_t in one launch
// launch  one block per token
// options E storage, VEC elements moved by one access: 16 bytes, or 1 where rows or half heads are not a multiple of
//         that
#include "rope.cuh"

// Slot of token t.
__device__ inline i64 place(const int *slots, int t, int limit) {
    int slot = slots[t];
    if (slot < 0 || slot >= limit) __trap();
    return slot;
}

__device__ inline void copy_row(E *to, const E *from, int width) {
    for (int c = threadIdx.x * VEC; c < width; c += blockDim.x * VEC) {
        *reinterpret_cast<Pack<E, VEC> *>(to + c) = *reinterpret_cast<const Pack<E, VEC> *>(from + c);
    }
}

extern "C" __global__ void kvstore(E *pages,         // (N, S, K·D)
                                   const E *rows,    // (T, K·D)
                                   const int *slots, // (T)
                                   int width, int limit) {
    i64 t = blockIdx.x;
    copy_row(pages + place(slots, t, limit) * width, rows + t * width, width);
}

extern "C" __global__ void rope_kvstore(E *k_pages,           // (N, S, K·D)
                                        E *v_pages,           // (N, S, K·D)
                                        const E *k,           // (T, K·D)
                                        const E *v,           // (T, K·D)
                                        const int *positions, // (T)
                                        const float *table,   // (P, D): cos, then sin
                                        const int *slots,     // (T)
                                        int K, int D, int P, int limit) {
    i64 t = blockIdx.x, width = K * D;
    i64 slot = place(slots, t, limit);
    turn(k_pages + slot * width, k + t * width, table, positions[t], 1.0f, K, D, P);
    copy_row(v_pages + slot * width, v + t * width, width);
}
