// The bias of a linear: forward, and the gradient of the bias.
//
// math    y = x + b row by row; db = Σ_t dy
// launch  one block per row; db: one block of WARPS warps per 32·VEC columns. Warp l adds rows l, l + WARPS, …, then the
//         first warp adds the warps' sums, ascending
// options E storage of x and y, W storage of b, VEC elements moved by one access: 16 bytes, or 1 for rows that are
//         not a multiple of that
#include "prelude.cuh"

extern "C" __global__ void add_bias(E *y,       // (T, N)
                                    const E *x, // (T, N)
                                    const W *b, // (N)
                                    int N) {
    x += i64(blockIdx.x) * N;
    y += i64(blockIdx.x) * N;
    for (int c = threadIdx.x * VEC; c < N; c += blockDim.x * VEC) {
        float sum[VEC], bias[VEC];
        load(sum, x + c);
        load(bias, b + c);
#pragma unroll
        for (int i = 0; i < VEC; i++) sum[i] += bias[i];
        store(y + c, sum);
    }
}

extern "C" __global__ void add_bias_db(W *db,       // (N)
                                       const E *dy, // (T, N)
                                       int T, int N) {
    __shared__ float parts[WARPS][VEC][32];
    int warp = threadIdx.x / 32, thread = threadIdx.x % 32, c = (blockIdx.x * 32 + thread) * VEC;
    float sum[VEC] = {};
    for (int t = warp; t < T && c < N; t += WARPS) {
        float v[VEC];
        load(v, dy + i64(t) * N + c);
#pragma unroll
        for (int i = 0; i < VEC; i++) sum[i] += v[i];
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) parts[warp][i][thread] = sum[i];
    __syncthreads();
    if (warp != 0 || c >= N) return;
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        for (int l = 1; l < WARPS; l++) sum[i] += parts[l][i][thread];
        db[c + i] = put<W>(sum[i]);
    }
}
