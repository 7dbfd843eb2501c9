// The gated activation, forward and backward.
//
// math    with s = 1/(1 + e^−gate): y = gate·s·up; dup = dy·gate·s, dgate = dy·up·s·(1 + gate·(1 − s))
// launch  one thread per 16 bytes of each array, 256 threads per block; the last thread may have fewer elements
// options E storage
#include "prelude.cuh"

constexpr int N = WIDE<E>;

__device__ inline float value(float gate, float up) { return gate * sigmoid<E>(gate) * up; }

__device__ inline void gradients(float &dgate, float &dup, float dy, float gate, float up) {
    float s = sigmoid<E>(gate);
    dgate = dy * up * s * (1.0f + gate * (1.0f - s));
    dup = dy * gate * s;
}

extern "C" __global__ void swiglu(E *y,          // (T, F)
                                  const E *gate, // (T, F)
                                  const E *up,   // (T, F)
                                  i64 n) {
    i64 i = flat<N>();
    if (i + N <= n) {
        float g[N], u[N];
        load(g, gate + i);
        load(u, up + i);
#pragma unroll
        for (int j = 0; j < N; j++) g[j] = value(g[j], u[j]);
        store(y + i, g);
    } else {
        for (; i < n; i++) y[i] = put<E>(value(get(gate[i]), get(up[i])));
    }
}

extern "C" __global__ void swiglu_backward(E *dgate,      // (T, F)
                                           E *dup,        // (T, F)
                                           const E *dy,   // (T, F)
                                           const E *gate, // (T, F)
                                           const E *up,   // (T, F)
                                           i64 n) {
    i64 i = flat<N>();
    if (i + N <= n) {
        float d[N], g[N], u[N];
        load(d, dy + i);
        load(g, gate + i);
        load(u, up + i);
#pragma unroll
        for (int j = 0; j < N; j++) gradients(g[j], u[j], d[j], g[j], u[j]);
        store(dgate + i, g);
        store(dup + i, u);
    } else {
        for (; i < n; i++) {
            float g, u;
            gradients(g, u, get(dy[i]), get(gate[i]), get(up[i]));
            dgate[i] = put<E>(g);
            dup[i] = put<E>(u);
        }
    }
}
