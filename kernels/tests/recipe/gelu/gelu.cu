// GELU in its tanh form, forward and backward.
//
// math    with u = 2√(2/π)·(x + 0.044715·x³) and s = 1/(1 + e^−u): y = x·s; dx = dy·s·(1 + x·u′·(1 − s))
// launch  one thread for 16 bytes of each array, 256 threads a block; the last thread may have fewer elements
// options E storage
#include "prelude.cuh"

constexpr int N = WIDE<E>;

__device__ inline float gate(float x) { return sigmoid<E>(1.595769f * (x + 0.044715f * x * x * x)); }

__device__ inline float gradient(float dy, float x) {
    float s = gate(x), slope = 1.595769f * (1.0f + 3.0f * 0.044715f * x * x);
    return dy * s * (1.0f + x * slope * (1.0f - s));
}

extern "C" __global__ void gelu(E *y,       // (n)
                                const E *x, // (n)
                                i64 n) {
    i64 i = flat<N>();
    if (i + N <= n) {
        float v[N];
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= gate(v[j]);
        store(y + i, v);
    } else {
        for (; i < n; i++) y[i] = put<E>(get(x[i]) * gate(get(x[i])));
    }
}

extern "C" __global__ void gelu_backward(E *dx,       // (n)
                                         const E *dy, // (n)
                                         const E *x,  // (n)
                                         i64 n) {
    i64 i = flat<N>();
    if (i + N <= n) {
        float g[N], v[N];
        load(g, dy + i);
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < N; j++) g[j] = gradient(g[j], v[j]);
        store(dx + i, g);
    } else {
        for (; i < n; i++) dx[i] = put<E>(gradient(get(dy[i]), get(x[i])));
    }
}
