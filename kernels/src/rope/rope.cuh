// The rotation of a token's heads.
#pragma once
#include "prelude.cuh"

// Turns H heads of D elements by the angles of one position, with a block: each thread keeps the angles of VEC pairs
// and takes them to one head after the other.
__device__ inline void turn(E *y,               // (H, D)
                            const E *x,         // (H, D)
                            const float *table, // (P, D): cos, then sin
                            int position, float direction, int H, int D, int P) {
    if (position < 0 || position >= P) __trap();
    int half = D / 2, parts = half / VEC, heads = blockDim.x / parts;
    int j = threadIdx.x % parts * VEC, head = threadIdx.x / parts;
    if (head >= heads) return;
    float cos[VEC], sin[VEC];
    load(cos, table + i64(position) * D + j);
    load(sin, table + i64(position) * D + half + j);
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
        store(y + head * D + j, x0);
        store(y + head * D + half + j, x1);
    }
}
