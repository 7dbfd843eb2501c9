// AdamW over many tensors in one launch, and the sum of squares of many gradients.
//
// math    g ← g·min(1, max_norm / (√squares + 10⁻⁶)); m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²;
//         p ← p·keep − lr·(m / correction₁) / (√(v / correction₂) + ε), keep = 1 − lr·λ; nothing where squares, the
//         squared norm of all gradients, is not finite
// launch  one block per CHUNK consecutive elements of one tensor, found by binary search in a table of tensors; 256
//         threads
#include "prelude.cuh"

constexpr int N = 4; // f32 in 16 bytes

// Row of the table for a block: the last tensor whose first block is not beyond it. A row of `words` ends with that
// first block.
__device__ inline const u64 *tensor_of(u64 block, const u64 *table, int tensors, int words) {
    int low = 0, high = tensors; // table[low] begins at or before the block, table[high] after it
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (table[i64(middle) * words + words - 1] <= block)
            low = middle;
        else
            high = middle;
    }
    return table + i64(low) * words;
}

struct Hyper {
    float lr, beta1, beta2, eps, keep, correction1, correction2, max_norm;
};

__device__ inline void step(float &p, float g, float &m, float &v, const Hyper &h, float scale) {
    g *= scale;
    m = h.beta1 * m + (1.0f - h.beta1) * g;
    v = h.beta2 * v + (1.0f - h.beta2) * g * g;
    p = p * h.keep - h.lr * (m / h.correction1) / (sqrtf(v / h.correction2) + h.eps);
}

extern "C" __global__ void adamw(const u64 *table,     // (tensors, 6): p, g, m, v, elements, first block
                                 const Hyper *hyper,   // (1)
                                 const float *squares, // (1)
                                 int tensors) {
    __shared__ float scale;
    if (threadIdx.x == 0) scale = float(fmin(hyper->max_norm / (sqrt(double(*squares)) + 1e-6), 1.0));
    if (!(*squares < INFINITE)) return;
    __syncthreads();
    const u64 *row = tensor_of(blockIdx.x, table, tensors, 6);
    float *p = reinterpret_cast<float *>(row[0]);
    const float *g = reinterpret_cast<const float *>(row[1]);
    float *m = reinterpret_cast<float *>(row[2]), *v = reinterpret_cast<float *>(row[3]);
    i64 n = row[4], start = i64(blockIdx.x - row[5]) * CHUNK;
    Hyper h = *hyper;
#pragma unroll
    for (int k = 0; k < CHUNK / (THREADS * N); k++) {
        i64 i = start + (k * THREADS + threadIdx.x) * N;
        if (i + N <= n) {
            float a[N], b[N], c[N], d[N];
            load(a, p + i);
            load(b, g + i);
            load(c, m + i);
            load(d, v + i);
#pragma unroll
            for (int j = 0; j < N; j++) step(a[j], b[j], c[j], d[j], h, scale);
            store(p + i, a);
            store(m + i, c);
            store(v + i, d);
        } else {
            for (; i < n; i++) step(p[i], g[i], m[i], v[i], h, scale);
        }
    }
}

// Σ of x over all threads, in thread 0: a tree over the block.
__device__ inline double tree_sum(double x) {
    __shared__ double sums[THREADS];
    sums[threadIdx.x] = x;
    for (int width = THREADS / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
    }
    return sums[0];
}

// parts_b = Σ g² over the elements of block b, in f64: per thread, then over the block.
extern "C" __global__ void squares(double *parts,    // (blocks)
                                   const u64 *table, // (tensors, 3): g, elements, first block
                                   int tensors) {
    const u64 *row = tensor_of(blockIdx.x, table, tensors, 3);
    const float *g = reinterpret_cast<const float *>(row[0]);
    i64 n = row[1], start = i64(blockIdx.x - row[2]) * CHUNK;
    double sum = 0.0;
#pragma unroll
    for (int k = 0; k < CHUNK / (THREADS * N); k++) {
        i64 i = start + (k * THREADS + threadIdx.x) * N;
        if (i + N <= n) {
            float x[N];
            load(x, g + i);
#pragma unroll
            for (int j = 0; j < N; j++) sum += double(x[j]) * x[j];
        } else {
            for (; i < n; i++) sum += double(g[i]) * g[i];
        }
    }
    sum = tree_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// sum = Σ parts, in f64, rounded once; one block.
extern "C" __global__ void squares_sum(float *sum,          // (1)
                                       const double *parts, // (count)
                                       int count) {
    double mine = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) mine += parts[i];
    mine = tree_sum(mine);
    if (threadIdx.x == 0) *sum = float(mine);
}
