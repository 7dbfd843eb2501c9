// The labelled tokens of a batch: they are listed and gathered, and their values are summed to a loss.
//
// launch  one block lists, one block sums; one block per row of C elements else
// options E storage of h, VEC elements of a row of C moved by one access: 16 bytes, or 1
#include "prelude.cuh"

constexpr int NO_LABEL = -100;

// rows = the tokens that have a label, ascending: `count` of them.
extern "C" __global__ void labelled_select(int *rows,          // (T)
                                           const int *targets, // (T)
                                           int T, int V, int count) {
    __shared__ int counts[32];
    int before = 0; // in earlier tiles
    for (int start = 0; start < T; start += blockDim.x) {
        int t = start + threadIdx.x;
        int target = t < T ? targets[t] : NO_LABEL;
        if (target != NO_LABEL && (target < 0 || target >= V)) __trap();
        u32 votes = __ballot_sync(FULL, target != NO_LABEL);
        __syncthreads(); // the counts of the last tile have been read
        if (lane() == 0) counts[warp()] = __popc(votes);
        __syncthreads();
        int place = before + __popc(votes & ((1u << lane()) - 1));
        for (int w = 0; w < blockDim.x / 32; w++) {
            if (w < warp()) place += counts[w];
            before += counts[w];
        }
        if (target != NO_LABEL) rows[place] = t;
    }
    if (before != count) __trap();
}

// Tokens without a label: a value of 0, and a gradient of 0 if one is wanted.
extern "C" __global__ void labelled_clear(E *dh,              // (T, C), or null
                                          float *values,      // (T)
                                          const int *targets, // (T)
                                          int C) {
    i64 t = blockIdx.x;
    if (targets[t] != NO_LABEL) return;
    if (threadIdx.x == 0) values[t] = 0.0f;
    if (!dh) return;
    float zero[VEC] = {};
    for (int c = threadIdx.x * VEC; c < C; c += blockDim.x * VEC) store(dh + t * C + c, zero);
}

// x_i = h of the i-th labelled token from `first` on.
extern "C" __global__ void labelled_gather(E *x,            // (n, C)
                                           const E *h,      // (T, C)
                                           const int *rows, // (T)
                                           int first, int C) {
    i64 i = blockIdx.x, t = rows[first + i];
    for (int c = threadIdx.x * VEC; c < C; c += blockDim.x * VEC) {
        *reinterpret_cast<Pack<E, VEC> *>(x + i * C + c) = *reinterpret_cast<const Pack<E, VEC> *>(h + t * C + c);
    }
}

// loss = factor · Σ values, in f64: per thread, then a tree over the block.
extern "C" __global__ void labelled_sum(float *loss,         // (1)
                                        const float *values, // (T)
                                        float factor, int T) {
    __shared__ double sums[THREADS];
    double sum = 0.0;
    for (int t = threadIdx.x; t < T; t += THREADS) sum += values[t];
    sums[threadIdx.x] = sum;
    for (int width = THREADS / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
    }
    if (threadIdx.x == 0) *loss = float(sums[0] * factor);
}
