// Fused linear cross-entropy around its matrix products: the kernels that process a tile of logits.
//
// math    logprob_t = z_{t,y_t} − ln Σ_v e^{z_tv}; the maximum and the sum follow the tiles online.
//         dh_t = scale·(Σ_v p_tv·head_v − head_{y_t}), dz_tv = scale·(p_tv − [v = y_t])
// launch  one block of 256 threads per row of a tile, kept in registers; one block per row of C elements
// options E storage of h, W storage of the head, VEC elements of a row of C moved by one access: 16 bytes, or 1
#include "logit_tile.cuh"

// Running softmax statistics of a labelled token.
struct State {
    float max, total; // total = Σ e^(z − max)
    float logit;      // the target's
};
static_assert(sizeof(State) == 4 * STATE, "the launches allocate states");

// Online softmax: updates the states with a tile of logits whose first column is row `start` of the head; p = e^(z −
// max) if wanted. A correction is what the larger maximum makes of the sums before the tile.
extern "C" __global__ void xent_follow(E *p,               // (n, width), or null
                                       State *states,      // (n)
                                       float *corrections, // (n)
                                       const float *z,     // (n, width)
                                       const int *targets, // (T)
                                       const int *rows,    // (T)
                                       int first,          // token
                                       int head,           // what the head's first row is in the vocabulary
                                       int start, int width) {
    i64 i = blockIdx.x;
    const float *row = z + i * width;
    Tile tile;
    load_tile(tile, row, width, -INFINITE);
    State s = {-INFINITE, 0.0f, 0.0f};
    if (start > 0) s = states[i];
    float largest = s.max;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) largest = fmaxf(largest, tile[k][j]);
    largest = block_max(largest);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum += tile[k][j] = exponential<E>(tile[k][j] - largest);
    sum = block_sum(sum);
    if (p) store_tile(p + i * width, tile, width);
    if (threadIdx.x == 0) {
        float correction = exponential<E>(s.max - largest);
        s.total = s.total * correction + sum;
        corrections[i] = correction;
        s.max = largest;
        int target = targets[rows[first + i]] - head - start;
        if (target >= 0 && target < width) s.logit = row[target];
        states[i] = s;
    }
}

// Between ranks that hold different rows of the head: the maximum of each token's logits on this rank.
extern "C" __global__ void xent_largest(float *largest,      // (n)
                                        const State *states, // (n)
                                        int n) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i < n) largest[i] = states[i].max;
}

// Rescales the states to the maxima over all ranks, and writes the sums that are to be all-reduced.
extern "C" __global__ void xent_rebase(float *sums,          // (2, stride): totals, targets' logits
                                       State *states,        // (n)
                                       float *corrections,   // (n)
                                       const float *largest, // (n)
                                       int stride, int n) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    State s = states[i];
    corrections[i] = exponential<E>(s.max - largest[i]);
    s.max = largest[i];
    sums[i] = s.total * corrections[i];
    sums[stride + i] = s.logit;
    states[i] = s;
}

// Copies the sums over all ranks into the states.
extern "C" __global__ void xent_joined(State *states,     // (n)
                                       const float *sums, // (2, stride)
                                       int stride, int n) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    states[i].total = sums[i];
    states[i].logit = sums[stride + i];
}

// logprob of every token, and dh = scale·(Σ p·head − head_target) if wanted. Where ranks hold other rows of the head, one
// of them holds the target's, and the sums are still to be corrected to the maximum over all ranks.
extern "C" __global__ void xent_finish(E *dh,               // (T, C), or null
                                       float *logprobs,     // (T)
                                       const float *sums,   // (n, C): Σ e^(z − max)·head, or null
                                       const float *corrections, // (n), or null
                                       const State *states, // (n)
                                       const W *head,       // (V, C)
                                       const int *targets,  // (T)
                                       const int *rows,     // (T)
                                       float scale, int first,
                                       int start, // what the head's first row is in the vocabulary
                                       int V, int C) {
    i64 i = blockIdx.x, t = rows[first + i];
    State s = states[i];
    if (threadIdx.x == 0) logprobs[t] = s.logit - s.max - logf(s.total);
    if (!dh) return;
    constexpr int N = VEC < 4 ? VEC : 4; // 16 bytes of the sums
    int row = targets[t] - start;
    bool here = row >= 0 && row < V;
    float correction = corrections ? corrections[i] : 1.0f;
    for (int c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float x[N], w[N] = {};
        load(x, sums + i * C + c);
        if (here) load(w, head + i64(row) * C + c);
#pragma unroll
        for (int j = 0; j < N; j++) x[j] = scale * (x[j] * correction / s.total - w[j]);
        store(dh + t * C + c, x);
    }
}

// p = dz of a tile, now that the sum over all tiles is known.
extern "C" __global__ void xent_gradient(E *p,                // (n, width)
                                         const float *z,      // (n, width)
                                         const State *states, // (n)
                                         const int *targets,  // (T)
                                         const int *rows,     // (T)
                                         float scale, int first, int start, int width) {
    i64 i = blockIdx.x;
    State s = states[i];
    int target = targets[rows[first + i]] - start;
    Tile tile;
    load_tile(tile, z + i * width, width, -INFINITE);
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            tile[k][j] = scale * (exponential<E>(tile[k][j] - s.max) / s.total);
            if (column(k) + j == target) tile[k][j] -= scale;
        }
    store_tile(p + i * width, tile, width);
}

// y = x · factor, a scalar in device memory.
extern "C" __global__ void xent_scale(E *y,                // (n)
                                      const E *x,          // (n)
                                      const float *factor, // (1)
                                      i64 n) {
    constexpr int N = WIDE<E>;
    i64 i = flat<N>();
    float f = *factor;
    if (i + N <= n) {
        float v[N];
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= f;
        store(y + i, v);
    } else {
        for (; i < n; i++) y[i] = put<E>(get(x[i]) * f);
    }
}
