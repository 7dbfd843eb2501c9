// The loop of elementwise kernels: an op writes the function of one element, and calls `map` with it.
//
// launch  one thread per pack of N elements, 256 threads per block; the last thread may have fewer elements
// options E storage
#pragma once
#include "prelude.cuh"

// N consecutive elements of one array, or the results of a function that has N of them.
template <int N> struct Values {
    float at[N];
};

template <int N, typename Elem> __device__ inline Values<N> values(const Elem *p) {
    Values<N> x;
    load(x.at, p);
    return x;
}

// Stores the results of F for N elements: y[k][j] = result k of F(x.at[j]...).
template <auto F, int N, typename Elem, int OUTPUTS, typename... X>
__device__ inline void apply(Elem *const (&y)[OUTPUTS], i64 i, const X &...x) {
    float v[OUTPUTS][N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        Values<OUTPUTS> results = {F(x.at[j]...)};
#pragma unroll
        for (int k = 0; k < OUTPUTS; k++) v[k][j] = results.at[k];
    }
#pragma unroll
    for (int k = 0; k < OUTPUTS; k++) store(y[k] + i, v[k]);
}

// y[k][i] = result k of F(x[i]...) for this thread's elements i below n. F takes a float of each input, and returns a
// float, or Values of several results.
template <auto F, int N = WIDE<E>, typename To, int OUTPUTS, typename... From>
__device__ inline void map(To *const (&y)[OUTPUTS], i64 n, const From *...x) {
    i64 i = flat<N>();
    if (i + N <= n) {
        apply<F, N>(y, i, values<N>(x + i)...);
    } else {
        for (; i < n; i++) apply<F, 1>(y, i, values<1>(x + i)...);
    }
}
