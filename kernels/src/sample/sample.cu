// The next token of each row of logits: greedy, temperature, top-k, top-p, min-p, penalties of previous tokens.
//
// math    that of the CPU twin, see mod.rs. A token's key is the distance of its score below the best one, as the bits of
//         an f32: they ascend as the score falls. Every filter keeps the front of the order by key, lower ids first among
//         equals, so a filter is one number: the mass that it keeps
// select  keys are searched by digits, the first of 12 bits, then of 10 and of 9: a histogram of the counts and masses of
//         the tokens that share the digits found so far, and the bin in which their running sum passes a target
// memory  the row is read twice to find the best score and to make keys; as many keys as fit stay in shared memory, and
//         those of the rest are made anew in each later pass, of which there are 7 at most
// launch  one block of THREADS threads per row; its parameters are read from device memory
// numbers weights have the bits of the CPU twin; masses are integers, so their sums are exact in any order
// options E storage of the logits
#include "prelude.cuh"

constexpr float LARGEST = 3.402823466e38f; // of all finite numbers
// Digits end at these bits of a key. Tokens with a key of FAR, which is 32.0f, or more have no mass.
constexpr int COARSE = 19, MIDDLE = 9;
constexpr u32 FAR = u32(COARSE_BINS) << COARSE;
static_assert(FAR == 0x42000000u && FINE_BINS == 1 << (COARSE - MIDDLE), "");

struct Params {
    float temperature, top_p, min_p, repetition, frequency, presence;
    int top_k, first, generated, last; // previous tokens are first..last, those of a completion generated..last
    u32 seed_low, seed_high, step, site;
};

struct Choice {
    int token;
    int bad;          // the first token whose logit is no number or +∞, V if all are −∞, −1 if all is well
    float logit, max; // the logit of the token, or of the bad one
    double total;     // Σ e^(logit − max)
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

// Probability of a token relative to the likeliest one's, and the same in units of 1 / MASS, rounded down.
__device__ inline float weight(u32 key) { return twin_exp(-__uint_as_float(key)); }
__device__ inline u64 mass(float weight) { return u64(weight * float(MASS)); }

// ---- sums over the block

// To be called once.
__device__ inline double block_sum_f64(double x) {
    __shared__ double parts[32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    if (lane() == 0) parts[warp()] = x;
    __syncthreads();
    x = parts[lane()];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

// Minimum of x over the block; every x is a non-negative integer below 2²⁴.
__device__ inline int block_min(int x) { return -int(block_max(-float(x))); }

// Σ of x over the lanes up to this one.
__device__ inline u64 warp_scan(u64 x) {
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        u64 lower = __shfl_up_sync(FULL, x, step);
        if (lane() >= step) x += lower;
    }
    return x;
}

// Σ of x over the threads before this one, and over all of them.
__device__ inline u64 block_scan(u64 x, u64 &all) {
    __shared__ u64 parts[32];
    u64 here = warp_scan(x);
    __syncthreads(); // the parts of an earlier call have been read
    if (lane() == 31) parts[warp()] = here;
    __syncthreads();
    u64 warps = warp_scan(parts[lane()]);
    all = __shfl_sync(FULL, warps, 31);
    u64 before = __shfl_sync(FULL, warps, (warp() + 31) % 32);
    return (warp() == 0 ? 0 : before) + here - x;
}

// ---- the row

struct Row {
    const E *logits;      // (V)
    const int *counts;    // (V): times that a token was generated, for the previous tokens
    const u32 *penalized; // one bit a token: it is one of the previous
    u32 *held;            // of the first `kept` tokens: the logits, later the keys
    int V, kept;
    bool penalties; // there are previous tokens
    float repetition, frequency, presence, temperature, best;

    __device__ float logit(int i) const { return get(logits[i]); }
    __device__ float score(int i, float logit) const {
        if (!penalties || !(penalized[i / 32] >> i % 32 & 1)) return logit;
        float score = logit > 0.0f ? logit / repetition : __fmul_rn(logit, repetition);
        int n = counts[i];
        if (n == 0) return score;
        // The operations of the CPU twin, none of them fused. Finite, so that no difference of infinities arises.
        float amount = __fadd_rn(__fmul_rn(frequency, float(n)), presence);
        return __fsub_rn(score, fminf(fmaxf(amount, -LARGEST), LARGEST));
    }
    __device__ u32 key(int i, float logit) const { return __float_as_uint((best - score(i, logit)) / temperature); }
    __device__ u32 key(int i) const { return i < kept ? held[i] : key(i, logit(i)); }
};

// What this thread has seen of a row.
struct Seen {
    float largest, best; // of the logits and of the scores
    int bad, token;      // the first whose logit is no number or +∞, and the first of the best; V if there is none
};

// Keeps the logits that fit, and looks for the best score.
__device__ inline Seen look(const Row &row) {
    Seen seen = {-INFINITE, -INFINITE, row.V, row.V};
    for (int i = threadIdx.x; i < row.V; i += THREADS) {
        float logit = row.logit(i), score = row.score(i, logit);
        if (i < row.kept) row.held[i] = __float_as_uint(logit);
        if (!(logit < INFINITE)) seen.bad = min(seen.bad, i);
        seen.largest = fmaxf(seen.largest, logit);
        if (seen.token == row.V || score > seen.best) seen.best = score, seen.token = i;
    }
    return seen;
}

// The same where there are no penalties and rows are whole packs of PACK logits: scores are the logits.
constexpr int PACK = 4;
__device__ inline Seen look_at_packs(const Row &row) {
    Seen seen = {-INFINITE, -INFINITE, row.V, row.V};
    for (int i = threadIdx.x * PACK; i < row.V; i += THREADS * PACK) {
        float x[PACK];
        load(x, row.logits + i);
        if (i < row.kept) store(reinterpret_cast<float *>(row.held + i), x);
#pragma unroll
        for (int e = 0; e < PACK; e++) {
            if (!(x[e] < INFINITE)) seen.bad = min(seen.bad, i + e);
            if (x[e] > seen.best) seen.token = i + e;
            seen.best = fmaxf(seen.best, x[e]);
        }
    }
    seen.largest = seen.best;
    return seen;
}

template <int BINS> struct Histogram {
    u32 count[BINS], low[BINS], high[BINS];

    __device__ void clear() {
        for (int i = threadIdx.x; i < BINS; i += THREADS) count[i] = low[i] = high[i] = 0;
    }
    // Adds a token, whose mass is a sum of two words with a carry between them.
    __device__ void add(u32 bin, u64 mass) {
        atomicAdd(&count[bin], 1u);
        u32 before = atomicAdd(&low[bin], u32(mass)), more = u32(mass >> 32) + (before + u32(mass) < before);
        if (more) atomicAdd(&high[bin], more);
    }
    __device__ u64 mass(int bin) const { return u64(high[bin]) << 32 | low[bin]; }
};
typedef Histogram<COARSE_BINS> Coarse;
typedef Histogram<FINE_BINS> Fine;

enum Measure { COUNTS, MASSES };

// What a search finds: a bin, or a key whose digits not yet known are 0; what is left of the target inside of it; and
// the mass before it.
struct Found {
    u32 at;
    u64 rest, before;
};

// The bin in which the running sum passes `target`; BINS if none does.
template <int BINS> __device__ inline Found search(const Histogram<BINS> &h, u64 target, Measure measure) {
    __shared__ Found found;
    constexpr int EACH = (BINS + THREADS - 1) / THREADS;
    int first = threadIdx.x * EACH, end = min(first + EACH, BINS);
    u64 count = 0, mass = 0, all;
    for (int bin = first; bin < end; bin++) {
        count += h.count[bin];
        mass += h.mass(bin);
    }
    count = block_scan(count, all);
    if (threadIdx.x == 0) found = {BINS, 0, 0}; // everyone has read an earlier one
    mass = block_scan(mass, all);
    for (int bin = first; bin < end; bin++) {
        u64 before = measure == COUNTS ? count : mass, here = measure == COUNTS ? h.count[bin] : h.mass(bin);
        if (before <= target && target - before < here) found = {u32(bin), target - before, mass};
        count += h.count[bin];
        mass += h.mass(bin);
    }
    __syncthreads();
    return found;
}

// Finds the digit of the key from bit `end` on, given those from bit `begin` on.
__device__ inline void refine(const Row &row, Fine &fine, Found &found, int begin, int end, Measure measure) {
    fine.clear();
    __syncthreads();
    for (int i = threadIdx.x; i < row.V; i += THREADS) {
        u32 key = row.key(i);
        if ((key ^ found.at) >> begin == 0) fine.add((key ^ found.at) >> end, mass(weight(key)));
    }
    __syncthreads();
    Found digit = search(fine, found.rest, measure);
    found = {found.at | digit.at << end, digit.rest, found.before + digit.before};
}

// The key at which the running sum over the tokens in their order passes `target`; FAR if none with a mass does.
__device__ inline Found descend(const Row &row, const Coarse &coarse, Fine &fine, u64 target, Measure measure) {
    Found found = search(coarse, target, measure);
    found.at <<= COARSE;
    if (found.at == FAR) return found;
    refine(row, fine, found, COARSE, MIDDLE, measure);
    refine(row, fine, found, MIDDLE, 0, measure);
    return found;
}

// The token at which the running sum of `of` its key, by ascending ids, passes `target`.
template <typename Of> __device__ inline int walk(const Row &row, u64 target, Of of) {
    __shared__ int found;
    int stretch = (row.V + THREADS - 1) / THREADS * 32; // tokens of a warp
    int first = warp() * stretch + lane(), end = min(first - lane() + stretch, row.V);
    u64 sum = 0, all;
    for (int i = first; i < end; i += 32) sum += of(row.key(i));
    u64 before = __shfl_sync(FULL, block_scan(sum, all), 0), after = before + __shfl_sync(FULL, warp_scan(sum), 31);
    if (before <= target && target < after) {
        for (int i = first; before <= target; i += 32) {
            u64 here = before + warp_scan(i < end ? of(row.key(i)) : 0);
            u32 passed = __ballot_sync(FULL, here > target);
            if (passed && lane() == __ffs(passed) - 1) found = i;
            before = __shfl_sync(FULL, here, 31);
        }
    }
    __syncthreads();
    return found;
}

// Masses of all tokens of the row, and of those that min-p keeps.
struct Sums {
    u64 all, likely;
};

// Σ e^(logit − max).
__device__ inline double sum_exponentials(const Row &row, float max) {
    double total = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x; i < row.kept; i += THREADS) total += expf(__uint_as_float(row.held[i]) - max);
    for (int i = threadIdx.x; i < row.V; i += THREADS)
        if (i >= row.kept) total += expf(row.logit(i) - max);
    return block_sum_f64(total);
}

// Makes the keys, and sums masses, in `coarse` too where the order matters; returns Σ e^(logit − max).
__device__ inline double make_keys(const Row &row, Coarse &coarse, Sums &sums, bool sorted, float min_p, float max) {
    if (sorted) coarse.clear();
    __syncthreads();
    double total = 0.0;
    for (int i = threadIdx.x; i < row.V; i += THREADS) {
        float logit = i < row.kept ? __uint_as_float(row.held[i]) : row.logit(i);
        total += expf(logit - max);
        u32 key = row.key(i, logit);
        if (i < row.kept) row.held[i] = key;
        if (key >= FAR) continue;
        float w = weight(key);
        u64 m = mass(w);
        sums.all += m;
        if (w >= min_p) sums.likely += m;
        if (sorted) coarse.add(key >> COARSE, m);
    }
    block_scan(sums.all, sums.all);
    block_scan(sums.likely, sums.likely);
    return block_sum_f64(total);
}

__device__ inline int draw(const Row &row, const Coarse &coarse, Fine &fine, const Sums &sums, const Params &params,
                           bool by_k) {
    Words words = random_words(u64(params.seed_high) << 32 | params.seed_low, params.step, params.site, 0, 0);
    u64 u = u64(words.at[0]) << 32 | words.at[1], total = sums.all;
    float min_p = params.min_p;
    if (!by_k && params.top_p == 1.0f) {
        auto likely = [min_p](u32 key) { return weight(key) >= min_p ? mass(weight(key)) : 0; };
        return walk(row, __umul64hi(u, sums.likely), likely);
    }
    if (by_k) {
        Found last = descend(row, coarse, fine, params.top_k - 1, COUNTS);
        if (last.at != FAR) total = last.before + (last.rest + 1) * mass(weight(last.at));
    }
    if (params.top_p < 1.0f) {
        u64 least = u64(ceil(double(params.top_p) * double(total)));
        Found last = descend(row, coarse, fine, least - 1, MASSES);
        u64 each = mass(weight(last.at));
        total = last.before + (last.rest / each + 1) * each;
    }
    // Both filters keep the front of one order.
    Found drawn = descend(row, coarse, fine, __umul64hi(u, min(total, sums.likely)), MASSES);
    u64 each = mass(weight(drawn.at));
    return walk(row, drawn.rest, [drawn, each](u32 key) { return key == drawn.at ? each : 0; });
}

extern "C" __global__ void __launch_bounds__(THREADS) sample(Choice *choices,      // (B)
                                                             int *counts,          // (B, V), of previous tokens
                                                             const E *logits,      // (B, V)
                                                             const Params *params, // (B)
                                                             const int *previous,  // (P): all rows' previous tokens
                                                             int V, int P, int kept) {
    extern __shared__ __align__(16) u8 memory[];
    Coarse &coarse = *reinterpret_cast<Coarse *>(memory);
    Fine &fine = *reinterpret_cast<Fine *>(&coarse + 1);
    u32 *penalized = reinterpret_cast<u32 *>(&fine + 1), *held = penalized + (V + 127) / 128 * 4;
    i64 b = blockIdx.x;
    Params p = params[b];
    counts += b * V;
    Row row = {logits + b * V,     counts,       penalized,   held,       V,             kept,
               p.first < p.last, p.repetition, p.frequency, p.presence, p.temperature, -INFINITE};
    for (int i = threadIdx.x; i < (V + 31) / 32; i += THREADS) penalized[i] = 0;
    __syncthreads();
    if (p.first < 0 || p.generated < p.first || p.last > P) asm("trap;");
    for (int i = p.first + threadIdx.x; i < p.last; i += THREADS) {
        int id = previous[i];
        if (id < 0 || id >= V) asm("trap;");
        u32 bit = 1u << id % 32;
        if (!(atomicOr(&penalized[id / 32], bit) & bit)) counts[id] = 0;
    }
    __syncthreads();
    for (int i = p.generated + threadIdx.x; i < p.last; i += THREADS) atomicAdd(&counts[previous[i]], 1);
    __syncthreads();
    Seen seen = row.penalties || V % PACK != 0 ? look(row) : look_at_packs(row);
    float largest = block_max(seen.largest);
    int bad = block_min(seen.bad);
    if (bad < V || largest == -INFINITE) {
        if (threadIdx.x == 0) choices[b] = {0, bad, bad < V ? row.logit(bad) : 0.0f, 0.0f, 0.0};
        return;
    }
    row.best = block_max(seen.best) + 0.0f; // no −0, so that no difference is −0
    int token = block_min(seen.best == row.best ? seen.token : V);
    bool draws = p.temperature > 0.0f && fabsf(row.best) < INFINITE, by_k = p.top_k > 0 && p.top_k < V;
    Sums sums = {0, 0};
    double total;
    if (draws) {
        total = make_keys(row, coarse, sums, by_k || p.top_p < 1.0f, p.min_p, largest);
        token = draw(row, coarse, fine, sums, p, by_k);
    } else {
        total = sum_exponentials(row, largest);
    }
    if (threadIdx.x == 0) choices[b] = {token, -1, row.logit(token), largest, total};
}
