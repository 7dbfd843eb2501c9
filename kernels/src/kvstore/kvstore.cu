// Writes rows of new tokens into the pages of the KV cache; rotates queries and keys if requested.
//
// math    pages_{slot_t} = rows_t; or y_t = rope(q_t), k_pages_{slot_t} = rope(k_t) and v_pages_{slot_t} = v_t in one
//         launch
// launch  one block per token; or one per token and a few of the heads of q, k and v
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

extern "C" __global__ void kvstore(E *pages,         // (N, K, S, D)
                                   const E *rows,    // (T, K·D)
                                   const int *slots, // (T)
                                   int N, int K, int S, int D) {
    i64 t = blockIdx.x, at = place(slots, t, N, K, S, D);
    for (int c = threadIdx.x * VEC; c < K * D; c += blockDim.x * VEC) {
        int head = c / D;
        E *to = pages + at + i64(head) * S * D + c - head * D;
        *reinterpret_cast<Pack<E, VEC> *>(to) = *reinterpret_cast<const Pack<E, VEC> *>(rows + t * K * D + c);
    }
}

// Grid (T, ⌈(H + 2·K) / heads of a block⌉).
extern "C" __global__ void rope_kvstore(E *y,                 // (T, H·D)
                                        E *k_pages,           // (N, K, S, D)
                                        E *v_pages,           // (N, K, S, D)
                                        const E *q,           // (T, H·D)
                                        const E *k,           // (T, K·D)
                                        const E *v,           // (T, K·D)
                                        const int *positions, // (T)
                                        const float *table,   // (P, D): cos, then sin
                                        const int *slots,     // (T)
                                        int P, int N, int H, int K, int S, int D) {
    i64 t = blockIdx.x, at = place(slots, t, N, K, S, D), apart = i64(S) * D;
    Rotation rotation(table, positions[t], D, P);
    int head = blockIdx.y * rotation.heads + rotation.head; // of q, then of k, then of v
    if (rotation.head >= rotation.heads || head >= H + 2 * K) return;
    int kv = (head - H) % K;
    if (head < H) {
        rotation.turn(y + (t * H + head) * D, q + (t * H + head) * D, 1.0f, D);
    } else if (head < H + K) {
        rotation.turn(k_pages + at + kv * apart, k + (t * K + kv) * D, 1.0f, D);
    } else {
        rotation.copy(v_pages + at + kv * apart, v + (t * K + kv) * D, D);
    }
}
