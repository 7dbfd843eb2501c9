// Rotation of the heads of a token.
#pragma once
#include "prelude.cuh"

constexpr int LONGEST = 1024; // D

// Loads this thread's angles: pairs j..j + VEC of a row of the table (P, D).
__device__ inline void load_angles(float (&cos)[VEC], float (&sin)[VEC], const float *row, int j, int D) {
    if constexpr (VEC == 8) {
        // 32 bytes per thread: through shared memory, first fours before second fours, so that reads of the row are
        // coalesced and free of bank conflicts.
        __shared__ alignas(16) float fours[LONGEST];
        float v[4];
        for (int q = threadIdx.x; q < D / 4; q += blockDim.x) {
            load(v, row + q * 4);
            store(fours + (q % 2 * (D / 8) + q / 2) * 4, v);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < VEC; i += 4) {
            const float *at = fours + i / 4 * (D / 2) + j / 2;
            load(v, at);
#pragma unroll
            for (int k = 0; k < 4; k++) cos[i + k] = v[k];
            load(v, at + D / 4);
#pragma unroll
            for (int k = 0; k < 4; k++) sin[i + k] = v[k];
        }
    } else {
        load(cos, row + j);
        load(sin, row + D / 2 + j);
    }
}

// Rotates H heads of D elements by the angles of one position, by a block: each thread keeps the angles of VEC pairs
// and applies them to one head after the other.
__device__ inline void turn(E *y,               // (H, …): D elements of every `stride`
                            const E *x,         // (H, D)
                            const float *table, // (P, D): cos, then sin
                            int position, float direction, int H, int D, int P, i64 stride) {
    if (position < 0 || position >= P) __trap();
    int half = D / 2, parts = half / VEC, heads = blockDim.x / parts;
    int j = threadIdx.x % parts * VEC, head = threadIdx.x / parts;
    float cos[VEC], sin[VEC];
    load_angles(cos, sin, table + i64(position) * D, j, D);
    if (head >= heads) return;
    for (; head < H; head += heads) {
        float x0[VEC], x1[VEC];
        load(x0, x + head * D + j);
        load(x1, x + head * D + half + j);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            float sine = direction * sin[i], first = x0[i];
            x0[i] = first * cos[i] - x1[i] * sine;
            x1[i] = x1[i] * cos[i] + first * sine;
        }
        E *to = y + head * stride + j;
        store(to, x0);
        store(to + half, x1);
    }
}
