// y = a bᵀ in steps, from the naive loop to gemm.cu, whose tiles are the last steps.
// doc/02-gemm.md explains them; kernels/tests/ladder.rs checks and counts them.
//
// math    y_mn = Σ_k a_mk · b_nk in f32. Here M, N and K are multiples of 64; gemm.cu handles partial tiles
//   naive      one thread per element; every step of K reads 32 rows of b, one sector of each
//   tiled      a 32x32 tile of y shares its rows of a and b: 32 times fewer reads, and coalesced
//   padded     a line of shared memory is one word longer: no bank conflicts
//   registers  4x4 elements per thread: half a shared load per multiply-add instead of one and a quarter
//   tensor     mma.sync: 2048 multiply-adds per instruction of a warp
//   swizzled   chunks of a line are permuted by the line: the rows of a fragment lie in different banks
//   gemm       (in gemm.cu) cp.async in a pipeline of stages; then larger tiles; then flat tiles for few rows
#include "prelude.cuh"

extern "C" __global__ void naive(bf16 *y,       // (M, N)
                                 const bf16 *a, // (M, K)
                                 const bf16 *b, // (N, K)
                                 int M, int N, int K) {
    int m = blockIdx.y * 8 + threadIdx.x / 32, n = blockIdx.x * 32 + threadIdx.x % 32;
    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum = fmaf(get(a[m * K + k]), get(b[n * K + k]), sum);
    y[m * N + n] = put<bf16>(sum);
}

// 256 threads, a 32x32 tile of y; lines of shared memory are PITCH words apart.
template <int PITCH> __device__ inline void by_tile(bf16 *y, const bf16 *a, const bf16 *b, int N, int K) {
    __shared__ float as[32][PITCH], bs[32][PITCH];
    int m = blockIdx.y * 32, n = blockIdx.x * 32, row = threadIdx.x / 32, column = threadIdx.x % 32;
    float sum[4] = {};
    for (int k = 0; k < K; k += 32) {
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
            as[row + i][column] = get(a[(m + row + i) * K + k + column]);
            bs[row + i][column] = get(b[(n + row + i) * K + k + column]);
        }
        __syncthreads();
#pragma unroll
        for (int step = 0; step < 32; step++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] = fmaf(as[row + 8 * i][step], bs[column][step], sum[i]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) y[(m + row + 8 * i) * N + n + column] = put<bf16>(sum[i]);
}

extern "C" __global__ void tiled(bf16 *y,       // (M, N)
                                 const bf16 *a, // (M, K)
                                 const bf16 *b, // (N, K)
                                 int M, int N, int K) {
    by_tile<32>(y, a, b, N, K);
}

extern "C" __global__ void padded(bf16 *y,       // (M, N)
                                  const bf16 *a, // (M, K)
                                  const bf16 *b, // (N, K)
                                  int M, int N, int K) {
    by_tile<33>(y, a, b, N, K);
}

// 256 threads, a 64x64 tile of y. K is slowest in shared memory; the rows and columns of a thread are 16 apart.
extern "C" __global__ void registers(bf16 *y,       // (M, N)
                                     const bf16 *a, // (M, K)
                                     const bf16 *b, // (N, K)
                                     int M, int N, int K) {
    __shared__ float as[32][65], bs[32][65];
    int m = blockIdx.y * 64, n = blockIdx.x * 64, row = threadIdx.x / 16, column = threadIdx.x % 16;
    float sum[4][4] = {};
    for (int k = 0; k < K; k += 32) {
        int step = threadIdx.x % 32;
#pragma unroll
        for (int line = threadIdx.x / 32; line < 64; line += 8) {
            as[step][line] = get(a[(m + line) * K + k + step]);
            bs[step][line] = get(b[(n + line) * K + k + step]);
        }
        __syncthreads();
#pragma unroll
        for (int step = 0; step < 32; step++) {
            float x[4], w[4];
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = as[step][row + 16 * i], w[i] = bs[step][column + 16 * i];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) y[(m + row + 16 * i) * N + n + column + 16 * j] = put<bf16>(sum[i][j]);
}

// 128 threads, a 64x64 tile of y, warp tiles of 32x32, 64 steps of K in shared memory: lines of eight chunks of 16
// bytes. Chunk c of a line is stored at c, or at c ^ (line % 8) if SWIZZLED.
template <bool SWIZZLED> __device__ inline void by_warp(bf16 *y, const bf16 *a, const bf16 *b, int N, int K) {
    __shared__ __align__(128) bf16 as[64 * 64], bs[64 * 64];
    int m = blockIdx.y * 64, n = blockIdx.x * 64, l = lane(), row = warp() / 2 * 32, column = warp() % 2 * 32;
    auto at = [](int line, int chunk) { return line * 64 + (SWIZZLED ? chunk ^ line % 8 : chunk) * 8; };
    float acc[2][4][4] = {};
    for (int k = 0; k < K; k += 64) {
#pragma unroll
        for (int i = threadIdx.x; i < 64 * 8; i += 128) {
            int line = i / 8, chunk = i % 8;
            typedef Pack<u32, 4> Chunk;
            *reinterpret_cast<Chunk *>(as + at(line, chunk)) =
                *reinterpret_cast<const Chunk *>(a + (m + line) * K + k + chunk * 8);
            *reinterpret_cast<Chunk *>(bs + at(line, chunk)) =
                *reinterpret_cast<const Chunk *>(b + (n + line) * K + k + chunk * 8);
        }
        __syncthreads();
#pragma unroll
        for (int step = 0; step < 4; step++) {
            u32 x[2][4], w[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load_matrices(x[i], shared_address(as + at(row + 16 * i + l % 16, 2 * step + l / 16)));
                load_matrices(w[i],
                              shared_address(bs + at(column + 16 * i + l / 16 * 8 + l % 8, 2 * step + l / 8 % 2)));
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma(acc[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                bf16 *to = y + (m + row + 16 * i + 8 * half + l / 4) * N + n + column + 8 * j + l % 4 * 2;
                *reinterpret_cast<u32 *>(to) = pair(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
            }
}

extern "C" __global__ void tensor(bf16 *y,       // (M, N)
                                  const bf16 *a, // (M, K)
                                  const bf16 *b, // (N, K)
                                  int M, int N, int K) {
    by_warp<false>(y, a, b, N, K);
}

extern "C" __global__ void swizzled(bf16 *y,       // (M, N)
                                    const bf16 *a, // (M, K)
                                    const bf16 *b, // (N, K)
                                    int M, int N, int K) {
    by_warp<true>(y, a, b, N, K);
}
