// The rotation of VEC pairs of a head.
#pragma once
#include "prelude.cuh"

// The cos of a position's angles; their sin follow after half a row. (P, D)
__device__ inline const float *angles(const float *table, int position, int P, int D) {
    if (position < 0 || position >= P) __trap();
    return table + i64(position) * D;
}

// y and x point at the first element of VEC pairs; the second is `half` further on.
__device__ inline void turn(E *y, const E *x, const float *cos, float direction, int half) {
    float x0[VEC], x1[VEC], c[VEC], s[VEC];
    load(x0, x);
    load(x1, x + half);
    load(c, cos);
    load(s, cos + half);
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        float sine = direction * s[i], first = x0[i];
        x0[i] = first * c[i] - x1[i] * sine;
        x1[i] = x1[i] * c[i] + first * sine;
    }
    store(y, x0);
    store(y + half, x1);
}
