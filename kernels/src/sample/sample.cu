// The next token of each row of logits: greedy, temperature, top-k, top-p, min-p, repetition penalty.
//
// math    that of the CPU twin, see mod.rs. Tokens are ordered by score, the lower id first among equals; every filter
//         but min-p keeps the front of that order, which is described by a lowest key and a last id among its equals.
//         Both are found by bisection over the bits of the key: one pass over the row per bit, nothing is sorted
// launch  one block of 1024 threads per row; its parameters are read from device memory
// numbers weights have the bits of the CPU twin, their sums are f64 in a fixed order
// options E storage of the logits
#include "prelude.cuh"

struct Params {
    float temperature, top_p, min_p, penalty;
    int top_k, first, last; // previous tokens are first..last
    u32 seed_low, seed_high, step, site, unused;
};

struct Choice {
    int token;
    int bad;          // the first token whose logit is no number or +∞, V if all are −∞, −1 if all is well
    float logit, max; // the logit of the token, or of the bad one
    double total;     // Σ e^(logit − max)
};

struct Row {
    float *score, *weight; // (V)
    int V;
    u32 lowest; // candidates have a higher key, or this one and an id up to `last`
    int last;
    float floor; // and at least this weight

    // Grows with the score.
    __device__ u32 key(int i) const {
        u32 bits = __float_as_uint(score[i]);
        return bits >> 31 ? ~bits : bits | 0x80000000u;
    }
    __device__ bool candidate(int i) const {
        u32 k = key(i);
        return (k > lowest || (k == lowest && i <= last)) && weight[i] >= floor;
    }
};

// e^x by the same operations as on the CPU, none of them fused: the same bits.
__device__ inline float twin_exp(float x) {
    const float SHIFT = 12582912.0f; // 1.5·2²³
    x = fminf(fmaxf(x, -104.0f), 88.8f);
    float shifted = __fadd_rn(__fmul_rn(x, 1.44269504f), SHIFT);
    float n = __fsub_rn(shifted, SHIFT);
    float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
    const float terms[5] = {1.3981999e-3f, 8.333452e-3f, 4.1665796e-2f, 1.6666665e-1f, 0.50000003f};
    float p = 1.9875691e-4f;
#pragma unroll
    for (int i = 0; i < 5; i++) p = __fadd_rn(__fmul_rn(p, r), terms[i]);
    float e = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
    int whole = __float_as_int(shifted) - __float_as_int(SHIFT), half = whole >> 1, rest = whole - half;
    return __fmul_rn(__fmul_rn(e, __int_as_float((half + 127) << 23)), __int_as_float((rest + 127) << 23));
}

__device__ inline double block_sum_f64(double x) {
    __shared__ double parts[32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    __syncthreads(); // the parts of an earlier call have been read
    if (lane() == 0) parts[warp()] = x;
    __syncthreads();
    x = parts[lane()];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

// Minimum of x over the block; every x is a non-negative integer below 2²⁴.
__device__ inline int block_min(int x) { return -int(block_max(-float(x))); }

// Σ of the weights of candidates whose key is at least `key`.
__device__ inline double mass(const Row &row, u32 key) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < row.V; i += THREADS)
        if (row.key(i) >= key && row.candidate(i)) sum += row.weight[i];
    return block_sum_f64(sum);
}

// The largest key that `reached` accepts; it accepts 0, and every key below one that it accepts.
template <typename Reached> __device__ inline u32 largest_key(Reached reached) {
    u32 key = 0;
    for (u32 bit = 0x80000000u; bit; bit >>= 1)
        if (reached(key | bit)) key |= bit;
    return key;
}

// The n-th id, from 0, among the candidates of this key; the last of them if there are fewer.
__device__ inline int nth(const Row &row, u32 key, int n) {
    __shared__ int counts[THREADS / 32], found;
    if (threadIdx.x == 0) found = -1;
    int before = 0; // in earlier tiles
    for (int start = 0; start < row.V && before <= n; start += THREADS) {
        int i = start + threadIdx.x;
        bool here = i < row.V && row.key(i) == key && row.candidate(i);
        u32 votes = __ballot_sync(FULL, here);
        __syncthreads(); // counts have been read, `found` is set
        if (lane() == 0) counts[warp()] = __popc(votes);
        __syncthreads();
        int place = before + __popc(votes & ((1u << lane()) - 1));
        for (int w = 0; w < THREADS / 32; w++) {
            if (w < warp()) place += counts[w];
            before += counts[w];
        }
        // The n-th if there is one, else the last.
        if (here && (place == n || (place < n && place == before - 1))) found = i;
    }
    __syncthreads();
    int id = found;
    __syncthreads(); // everyone has read it
    return id;
}

// Key and id at which the cumulative mass in sorted order reaches (or, if `beyond`, exceeds) `target`.
__device__ inline void descend(const Row &row, double target, bool beyond, u32 &key, int &id) {
    key = largest_key([&](u32 k) { return beyond ? mass(row, k) > target : mass(row, k) >= target; });
    double above = key == 0xffffffffu ? 0.0 : mass(row, key + 1);
    double weight = row.weight[nth(row, key, 0)];
    // Number of candidates of this key that come before the one searched for.
    int n = weight > 0.0 ? int(fmax((target - above) / weight, 0.0)) : 0;
    while (n > 0 && (beyond ? above + n * weight > target : above + n * weight >= target)) n--;
    while (!(beyond ? above + (n + 1) * weight > target : above + (n + 1) * weight >= target) && n < row.V) n++;
    id = nth(row, key, n);
}

// First id, ascending, at which the cumulative mass exceeds `target`; the last candidate if none does.
__device__ inline int walk(const Row &row, double target) {
    __shared__ double sums[THREADS / 32];
    double before = 0.0; // in earlier tiles
    int last = 0;
    for (int start = 0; start < row.V; start += THREADS) {
        int i = start + threadIdx.x;
        bool here = i < row.V && row.candidate(i);
        double sum = here ? row.weight[i] : 0.0;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            double lower = __shfl_up_sync(FULL, sum, step);
            if (lane() >= step) sum += lower;
        }
        __syncthreads(); // the sums of the last tile have been read
        if (lane() == 31) sums[warp()] = sum;
        __syncthreads();
        double whole = 0.0, earlier = 0.0;
        for (int w = 0; w < THREADS / 32; w++) {
            if (w == warp()) earlier = whole;
            whole += sums[w];
        }
        int first = block_min(here && before + (earlier + sum) > target ? i : row.V);
        if (first < row.V) return first;
        before += whole;
        last = max(last, int(block_max(here ? i : 0)));
    }
    return last;
}

__device__ inline int draw(Row &row, const Params &params) {
    bool sorted = params.top_p < 1.0f || (params.top_k > 0 && params.top_k < row.V);
    if (params.top_k > 0 && params.top_k < row.V) {
        u32 key = largest_key([&](u32 k) {
            float count = 0.0f;
            for (int i = threadIdx.x; i < row.V; i += THREADS) count += row.key(i) >= k;
            return block_sum(count) >= params.top_k;
        });
        float above = 0.0f;
        for (int i = threadIdx.x; i < row.V; i += THREADS) above += row.key(i) > key;
        int id = nth(row, key, params.top_k - 1 - int(block_sum(above)));
        row.lowest = key;
        row.last = id;
    }
    if (params.top_p < 1.0f) {
        u32 key;
        int id;
        descend(row, double(params.top_p) * mass(row, 0), false, key, id);
        row.lowest = key;
        row.last = id;
    }
    row.floor = params.min_p;
    Words words = random_words(u64(params.seed_high) << 32 | params.seed_low, params.step, params.site, 0, 0);
    double u = double((u64(words.at[0]) << 32 | words.at[1]) >> 11) / double(1ull << 53);
    double total = mass(row, 0), target = u * total;
    if (target >= total) target = total * (1.0 - 1e-15); // rounded up: the last of them
    if (!sorted) return walk(row, target);
    u32 key;
    int id;
    descend(row, target, true, key, id);
    return id;
}

extern "C" __global__ void __launch_bounds__(THREADS) sample(Choice *choices,      // (B)
                                                             float *scores,        // (B, V)
                                                             float *weights,       // (B, V)
                                                             const E *logits,      // (B, V)
                                                             const Params *params, // (B)
                                                             const int *previous,  // (P): all rows' previous tokens
                                                             int V, int P) {
    i64 b = blockIdx.x;
    const E *x = logits + b * V;
    Row row = {scores + b * V, weights + b * V, V, 0, V - 1, 0.0f};
    Params p = params[b];
    float largest = -INFINITE;
    int bad = V;
    for (int i = threadIdx.x; i < V; i += THREADS) {
        float logit = get(x[i]);
        row.score[i] = logit;
        if (!(logit < INFINITE)) bad = min(bad, i);
        largest = fmaxf(largest, logit);
    }
    largest = block_max(largest);
    bad = block_min(bad);
    if (bad < V || largest == -INFINITE) {
        if (threadIdx.x == 0) choices[b] = {0, bad, bad < V ? get(x[bad]) : 0.0f, 0.0f, 0.0};
        return;
    }
    double total = 0.0;
    for (int i = threadIdx.x; i < V; i += THREADS) total += expf(get(x[i]) - largest);
    total = block_sum_f64(total);
    if (p.first < 0 || p.last > P) asm("trap;");
    for (int i = p.first + threadIdx.x; i < p.last; i += THREADS) {
        int id = previous[i];
        if (id < 0 || id >= V) asm("trap;");
        float logit = get(x[id]); // as given: a token met twice is penalized once
        row.score[id] = logit > 0.0f ? logit / p.penalty : logit * p.penalty;
    }
    __syncthreads();
    float best = -INFINITE;
    for (int i = threadIdx.x; i < V; i += THREADS) best = fmaxf(best, row.score[i]);
    best = block_max(best);
    int token;
    if (p.temperature == 0.0f) {
        token = V;
        for (int i = threadIdx.x; i < V; i += THREADS)
            if (row.score[i] == best) token = min(token, i);
        token = block_min(token);
    } else {
        for (int i = threadIdx.x; i < V; i += THREADS) {
            float score = (row.score[i] - best) / p.temperature + 0.0f; // no −0: it equals 0
            row.score[i] = score;
            row.weight[i] = twin_exp(score);
        }
        __syncthreads();
        token = draw(row, p);
    }
    if (threadIdx.x == 0) choices[b] = {token, -1, get(x[token]), largest, total};
}
