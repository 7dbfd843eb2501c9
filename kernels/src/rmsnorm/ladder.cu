// The forward of RMSNorm in steps, from the naive loop to rmsnorm.cu, which is the last step.
// doc/01-rmsnorm.md walks through them; kernels/tests/ladder.rs checks and counts them.
//
// math    y = x / √(mean(x²) + eps) · w, row by row
//   by_thread  one thread per row; every access of a warp touches 32 rows, one sector of each
//   by_block   one block per row, coalesced: an access touches 2 sectors instead of 32
//   shuffled   the sum passes through registers instead of a tree in shared memory: 2 barriers instead of 9
//   packed     16 bytes per access instead of 2: an eighth of the requests
//   rmsnorm    (in rmsnorm.cu) the row stays in registers: x is read once
#include "prelude.cuh"

extern "C" __global__ void by_thread(E *y,       // (T, C)
                                     const E *x, // (T, C)
                                     const E *w, // (C)
                                     float eps, int T, int C) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T) return;
    x += i64(t) * C;
    y += i64(t) * C;
    float squares = 0.0f;
    for (int c = 0; c < C; c++) squares += get(x[c]) * get(x[c]);
    float r = 1.0f / sqrtf(squares / C + eps);
    for (int c = 0; c < C; c++) y[c] = put<E>(get(x[c]) * r * get(w[c]));
}

// Shared by the remaining steps: one row per block; `sum` reduces the partial sums of squares of the threads.
template <int N, typename Sum> __device__ inline void by_row(E *y, const E *x, const E *w, float eps, int C, Sum sum) {
    x += i64(blockIdx.x) * C;
    y += i64(blockIdx.x) * C;
    float squares = 0.0f, v[N], scale[N];
    for (int c = threadIdx.x * N; c < C; c += THREADS * N) {
        load(v, x + c);
#pragma unroll
        for (int i = 0; i < N; i++) squares += v[i] * v[i];
    }
    float r = 1.0f / sqrtf(sum(squares) / C + eps);
    for (int c = threadIdx.x * N; c < C; c += THREADS * N) {
        load(v, x + c);
        load(scale, w + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= r * scale[i];
        store(y + c, v);
    }
}

// Halves the number of partial sums until one is left.
__device__ inline float tree_sum(float x) {
    __shared__ float parts[THREADS];
    parts[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
    return parts[0];
}

extern "C" __global__ void by_block(E *y,       // (T, C)
                                    const E *x, // (T, C)
                                    const E *w, // (C)
                                    float eps, int C) {
    by_row<1>(y, x, w, eps, C, tree_sum);
}

extern "C" __global__ void shuffled(E *y,       // (T, C)
                                    const E *x, // (T, C)
                                    const E *w, // (C)
                                    float eps, int C) {
    by_row<1>(y, x, w, eps, C, block_sum);
}

extern "C" __global__ void packed(E *y,       // (T, C)
                                  const E *x, // (T, C)
                                  const E *w, // (C)
                                  float eps, int C) {
    by_row<WIDE<E>>(y, x, w, eps, C, block_sum);
}
