// Measures the peaks of a GPU: bytes per second of a copy, tensor-core products per second out of registers.
//
// launch  copy: one thread per 16 bytes. products: warps that never touch memory, CHAINS accumulators each
#include "prelude.cuh"

extern "C" __global__ void copy(u32 *y,       // (n)
                                const u32 *x, // (n)
                                i64 n) {
    i64 i = flat<4>();
    if (i + 4 <= n) *reinterpret_cast<Pack<u32, 4> *>(y + i) = *reinterpret_cast<const Pack<u32, 4> *>(x + i);
}

// `rounds` products (16, 16)·(16, 8) per chain.
extern "C" __global__ void products(float *y, // (warps)
                                    int rounds) {
    u32 one = pair(1.0f, 1.0f), a[4] = {one, one, one, one};
    float c[CHAINS][4] = {};
    for (int r = 0; r < rounds; r++)
#pragma unroll
        for (int k = 0; k < CHAINS; k++) mma(c[k], a, one, one);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < CHAINS; k++) sum += c[k][0];
    if (lane() == 0) y[blockIdx.x * (blockDim.x / 32) + warp()] = sum;
}
