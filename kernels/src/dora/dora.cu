// Norms of the rows of W + s B A, and the scaling of output channels by their magnitudes.
//
// math    n_j = ‖W_j + s B_j A‖; y = x ⊙ m/n, dx = dy ⊙ m/n; dm = Σ_t dy ⊙ y / m
// launch  dora_norms: one warp per ROWS rows, its lanes stride over the channels, so a value of A is read once for all
//         of them. magnify: one block per row. magnitudes: one block per slab of SLAB rows and 128 columns; gemm's
//         `sum` adds the slabs, ascending
// options E storage of x and y, W storage of the weight, VEC elements moved by one access
#include "prelude.cuh"

extern "C" __global__ void dora_norms(float *n,       // (N)
                                      const W *w,     // (N, C)
                                      const float *a, // (R, C)
                                      const float *b, // (N, R)
                                      float scale, int N, int C, int R) {
    int first = (blockIdx.x * (blockDim.x / 32) + warp()) * ROWS;
    if (first >= N) return; // the whole warp
    i64 row[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) row[i] = min(first + i, N - 1); // beyond the end, the last one again
    float squares[ROWS] = {};
    for (int c = lane(); c < C; c += 32) {
        float v[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) v[i] = get(w[row[i] * C + c]);
        for (int r = 0; r < R; r++) {
            float x = a[i64(r) * C + c];
#pragma unroll
            for (int i = 0; i < ROWS; i++) v[i] += scale * b[row[i] * R + r] * x;
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) squares[i] += v[i] * v[i];
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float length = sqrtf(warp_sum(squares[i]));
        if (lane() == 0 && first + i < N) n[first + i] = length;
    }
}

extern "C" __global__ void magnify(E *y,           // (T, N)
                                   const E *x,     // (T, N)
                                   const float *m, // (N)
                                   const float *n, // (N)
                                   int N) {
    i64 row = i64(blockIdx.x) * N;
    for (int j = threadIdx.x * VEC; j < N; j += blockDim.x * VEC) {
        float v[VEC], length[VEC], norm[VEC];
        load(v, x + row + j);
        load(length, m + j);
        load(norm, n + j);
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] *= length[i] / norm[i];
        store(y + row + j, v);
    }
}

extern "C" __global__ void magnitudes(float *parts,   // (⌈T / SLAB⌉, N)
                                      const E *dy,    // (T, N)
                                      const E *y,     // (T, N)
                                      const float *m, // (N)
                                      int T, int N) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= N) return;
    int start = blockIdx.y * SLAB, end = min(start + SLAB, T);
    float sum = 0.0f;
    for (int t = start; t < end; t++) sum += get(dy[i64(t) * N + j]) * get(y[i64(t) * N + j]);
    parts[i64(blockIdx.y) * N + j] = sum / m[j];
}
