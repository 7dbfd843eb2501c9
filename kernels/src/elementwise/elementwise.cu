// Elementwise ops: addition, ReLU, and conversion of the storage type.
//
// math    add: y = a + b in f32, rounded once. relu: y = x where `of` is above 0, else 0. convert: y = x, rounded to TO
// launch  one thread per pack of each array, 256 threads per block; the last thread may have fewer elements
// options E storage of the inputs, TO storage of the result of `convert`
#include "prelude.cuh"

extern "C" __global__ void add(E *y,       // (n)
                               const E *a, // (n)
                               const E *b, // (n)
                               i64 n) {
    constexpr int N = WIDE<E>;
    i64 i = flat<N>();
    if (i + N <= n) {
        float v[N], x[N];
        load(v, a + i);
        load(x, b + i);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] += x[j];
        store(y + i, v);
    } else {
        for (; i < n; i++) y[i] = put<E>(get(a[i]) + get(b[i]));
    }
}

extern "C" __global__ void relu(E *y,        // (n)
                                const E *x,  // (n)
                                const E *of, // (n)
                                i64 n) {
    constexpr int N = WIDE<E>;
    i64 i = flat<N>();
    if (i + N <= n) {
        float v[N], sign[N];
        load(v, x + i);
        load(sign, of + i);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = sign[j] > 0.0f ? v[j] : 0.0f;
        store(y + i, v);
    } else {
        for (; i < n; i++) y[i] = get(of[i]) > 0.0f ? x[i] : put<E>(0.0f);
    }
}

extern "C" __global__ void convert(TO *y,      // (n)
                                   const E *x, // (n)
                                   i64 n) {
    constexpr int N = 4; // 16 bytes of the wider type: both arrays are accessed without gaps
    i64 i = flat<N>();
    if (i + N <= n) {
        float v[N];
        load(v, x + i);
        store(y + i, v);
    } else {
        for (; i < n; i++) y[i] = put<TO>(get(x[i]));
    }
}
