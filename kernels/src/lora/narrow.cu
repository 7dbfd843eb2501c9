// Low-rank products of adapters, for bf16 activations: S = s x̃ Aᵀ, dS = s dy B, dB = dyᵀ S, dA = dSᵀ x̃.
//
// math    x̃ = mask/(1-p) ⊙ x. Each product is split into partial f32 sums over a fixed length (split-K), which gemm's
//         `sum` (S) and the folds (dS, dB, dA) add in order. Factors of 1/(1-p) and s are applied to S here, and to dS and
//         dA by their folds
// layout  S and dS hold the columns of all linears that share x side by side, each R rounded up to 16 and padded with
//         zeros; so a group of 16 columns belongs to one linear and one adapter
// launch  per block, lora_s: 128 rows, GROUPS groups, SLICE channels; the first of a row's blocks store the mask.
//         lora_ds_db: 256 columns of one dy, a run of rows, one group; it reads dy once for both. lora_da: GROUPS groups,
//         128 channels, a run of rows. The folds: one thread per 4 columns of a result
// options ALIGNED 1 when rows of x, a and dy are multiples of 16 bytes, else 0; GROUPS 1 to MAX_GROUPS
#include "prelude.cuh"
#include "mainloop.cuh"
#include "mask.cuh"
#include "targets.cuh"

// ---- S

typedef Product<NT, S_SHAPE + GROUPS - 1, float, ALIGNED> Rows;
typedef Tile<float, true, RANK_GROUP, Rows::BK> Group; // the lines of A of one group

// Copies x and the A of each group, which belong to several linears and adapters.
struct GroupFeeds {
    typename Rows::A::Feed<Rows::THREADS, ALIGNED> x;
    typename Group::Feed<Rows::THREADS, ALIGNED> a[GROUPS];
    int tiles, copied = 0;

    __device__ void copy(u32 stage) {
        if (copied < tiles) {
            x.copy(stage);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) a[g].copy(stage + Rows::A::BYTES + g * Group::BYTES);
        }
        copied++;
        copy_commit();
    }
};

// The dropout mask of a block's rows: makes the words of a tile of x while the one before is multiplied, and zeroes the
// dropped channels of x, the left operand, where pairs along K are channels 2i and 2i + 1 of a word.
struct MaskedRows {
    static constexpr int WORDS = Rows::BK / 32, BYTES = Rows::BM * WORDS * 4;
    static_assert(Rows::THREADS == Rows::BM && WORDS == 2, "a thread makes the two words of a row");

    u64 seed;
    u32 step, site, threshold, token, channel; // the block's first channel, in the unsharded input
    u32 shared; // address of the words of three tiles: one is read, one may still be, and one is made
    u32 *mask;  // (words left): this thread's row from the block's first word on
    int words, tiles;

    __device__ u32 place(int tile) const { return shared + tile % 3 * BYTES; }

    __device__ void make(int tile) const {
        if (tile >= tiles) return;
        u32 bits[WORDS];
#pragma unroll
        for (int w = 0; w < WORDS; w++) {
            int word = tile * WORDS + w;
            bits[w] = mask_word(seed, step, site, threshold, token, channel + 32 * word);
            if (word < words) mask[word] = bits[w];
        }
        store_shared(place(tile) + threadIdx.x * WORDS * 4, bits[0], bits[1]);
    }

    template <int MT, int COLUMNS>
    __device__ void operator()(u32 (&a)[MT][4], u32 (&)[COLUMNS][2], int tile, int step) const {
        if (step == 0) make(tile + 1);
        u32 from = place(tile) + ((Rows::warp_m() + lane() / 4) * WORDS + step / 2) * 4;
        u32 select = step % 2 ? 0xbbaa : 0x9988;
        int shift = 7 - lane() % 4;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 word = __float_as_uint(load_shared(from + (16 * i + 8 * half) * WORDS * 4));
                a[i][half] &= spread_signs(word << shift, 0, select);
                a[i][half + 2] &= spread_signs(word << (shift - 4), 0, select);
            }
    }
};

extern "C" __global__ void __launch_bounds__(Rows::THREADS)
    lora_s(float *parts,      // (slices, T, pitch)
           u32 *mask,         // (T, ⌈C/32⌉), or null
           const bf16 *x,     // (T, C)
           const int *tokens, // (T): id of each token; or null without dropout
           const int *choice, // (T): each row's adapter; or null, and there is one
           const float *a0, const float *a1, const float *a2, const float *a3,     // (adapters, R, C)
           int r0, int r1, int r2, int r3, float s0, float s1, float s2, float s3, // scales of S
           u64 seed, u32 step, u32 site, u32 threshold, int first, int adapters, int T, int C, int slice, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    Rows block(memory, blockIdx.x * Rows::BM, blockIdx.y * Rows::BN);
    int k = blockIdx.z * slice, end = min(C, k + slice);
    GroupFeeds feeds;
    feeds.x = {{x, C, T, end}, block.m, k};
    feeds.tiles = (end - k + Rows::BK - 1) / Rows::BK;
    int of_adapter[GROUPS];
    float scales[GROUPS];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int group = blockIdx.y * GROUPS + g, target = 0, R = r0;
        while (target < TARGETS && group >= adapters * ((R + RANK_GROUP - 1) / RANK_GROUP)) {
            group -= adapters * ((R + RANK_GROUP - 1) / RANK_GROUP);
            target++;
            R = pick(target, r0, r1, r2, r3);
        }
        // Groups beyond the last linear have no lines.
        int groups = max((R + RANK_GROUP - 1) / RANK_GROUP, 1), adapter = group / groups;
        const float *a = target < TARGETS ? pick(target, a0, a1, a2, a3) + i64(adapter) * R * C : nullptr;
        feeds.a[g] = {{a, C, target < TARGETS ? R : 0, end}, group % groups * RANK_GROUP, k};
        of_adapter[g] = adapter;
        scales[g] = pick(target, s0, s1, s2, s3);
    }
    Rows::Accumulators acc = {};
    block.fill(feeds);
    if (tokens) {
        int row = block.m + threadIdx.x, words = (C + 31) / 32;
        bool stores = row < T && blockIdx.y == 0;
        MaskedRows masked = {seed, step, site, threshold, row < T ? tokens[row] : 0u, u32(first + k)};
        masked.shared = block.shared + Rows::STAGES * Rows::STAGE;
        masked.mask = mask + i64(row) * words + k / 32;
        masked.words = stores ? words - k / 32 : 0;
        masked.tiles = feeds.tiles;
        masked.make(0);
        block.run(acc, feeds, masked);
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * T * pitch;
    static_assert(Rows::WARPS_N == 1 && RANK_GROUP == 16, "a warp has all groups, of two mma tiles each");
#pragma unroll
    for (int i = 0; i < 2 * Rows::MT; i++) {
        int row = block.m + Rows::warp_m() + 8 * i + lane() / 4;
        if (row >= T) break;
        int chosen = choice ? choice[row] : -1;
        if (chosen >= adapters) __trap();
#pragma unroll
        for (int j = 0; j < 2 * GROUPS; j++) {
            int column = block.n + 8 * j + lane() % 4 * 2;
            if (column >= pitch) break;
            float factor = !choice || chosen == of_adapter[j / 2] ? scales[j / 2] : 0.0f;
            const float *x = acc[i / 2][j] + 2 * (i % 2);
            float pair[2] = {factor * x[0], factor * x[1]};
            store(parts + i64(row) * pitch + column, pair);
        }
    }
}

// ---- dS and dB

typedef Tile<bf16, true, STRIP_ROWS, STRIP_COLUMNS> Strip;            // dy: rows of it are the left operand of dS,
typedef Tile<bf16, false, STRIP_COLUMNS, STRIP_ROWS> StripTransposed; // columns that of dB
typedef Tile<bf16, false, RANK_GROUP, STRIP_ROWS> Low;                // S
typedef Tile<bf16, false, RANK_GROUP, STRIP_COLUMNS> Up;              // B
constexpr int STRIP_STAGE = Strip::BYTES + Low::BYTES;

// Loads rows n.. and columns r.. of B (N, R), rounded to bf16; they serve all strips.
__device__ inline void load_up(u32 to, const float *b, int n, int r, int N, int R) {
    int quarter = threadIdx.x % 4, column = r + quarter * 4;
    for (int line = threadIdx.x / 4; line < STRIP_COLUMNS; line += STRIP_THREADS / 4) {
        const float *from = b + i64(n + line) * R + column;
        float x[4] = {};
        if (ALIGNED) {
            if (n + line < N && column < R) load(x, from);
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (n + line < N && column + e < R) x[e] = from[e];
        }
        store_shared(to + Up::at(line, quarter / 2) + quarter % 2 * 8, pair(x[0], x[1]), pair(x[2], x[3]));
    }
}

// 16 rows of dS by a warp: dy (16, 256) · B (256, 16).
__device__ inline void make_ds(float (&acc)[2][4], u32 strip, u32 up, int row) {
    u32 from = strip + Strip::a_lane(row), from_up = up + Up::b_lane(0);
#pragma unroll
    for (int k = 0; k < STRIP_COLUMNS; k += 16) {
        u32 a[1][4], b[2][2];
        Strip::a_fragments(a, from, k);
        Up::b_fragments(b, from_up, k);
#pragma unroll
        for (int j = 0; j < 2; j++) mma(acc[j], a[0], b[j][0], b[j][1]);
    }
}

// 64 rows of dB by a warp: += dyᵀ (64, 64) · S (64, 16).
__device__ inline void add_db(float (&acc)[4][2][4], u32 strip, u32 low, int column) {
    u32 from = strip + StripTransposed::a_lane(column), from_low = low + Low::b_lane(0);
#pragma unroll
    for (int k = 0; k < STRIP_ROWS; k += 16) {
        u32 a[4][4], b[2][2];
        StripTransposed::a_fragments(a, from, k);
        Low::b_fragments(b, from_low, k);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) mma(acc[i][j], a[i], b[j][0], b[j][1]);
    }
}

// Stores a pair of neighbouring columns of rows g and g + 8 of an mma tile; `rows` bounds the rows.
__device__ inline void store_rows(float *to, const float (&acc)[2][4], int row, int rows, int pitch) {
    row += lane() / 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float pair[2] = {acc[j][2 * half], acc[j][2 * half + 1]};
            if (row + 8 * half < rows) store(to + i64(row + 8 * half) * pitch + 8 * j + lane() % 4 * 2, pair);
        }
}

__device__ inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Elements of the parts of one linear: dS (strips of columns, T, padded), dB (runs of rows, N, padded).
__device__ inline i64 ds_parts(int T, int N, int padded) {
    return i64(round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS) * T * padded;
}
__device__ inline i64 db_parts(int T, int N, int padded, int run) { return i64(round_up(T, run) / run) * N * padded; }

extern "C" __global__ void __launch_bounds__(STRIP_THREADS, 2)
    lora_ds_db(float *ds,     // parts of each linear behind each other
               float *db,     // likewise
               const bf16 *s, // (T, pitch), a linear's columns from at on
               const bf16 *dy0, const bf16 *dy1, const bf16 *dy2, const bf16 *dy3, // (T, N), null beyond the last linear
               const float *b0, const float *b1, const float *b2, const float *b3, // (N, R)
               int n0, int n1, int n2, int n3, int r0, int r1, int r2, int r3,     //
               int at0, int at1, int at2, int at3, int T, int run, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    u32 shared = shared_address(memory);
    int strip = blockIdx.x, target = 0, N = n0, padded = round_up(r0, RANK_GROUP);
    while (strip >= round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS) {
        strip -= round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS;
        ds += ds_parts(T, N, padded);
        db += db_parts(T, N, padded, run);
        target++;
        N = pick(target, n0, n1, n2, n3);
        padded = round_up(pick(target, r0, r1, r2, r3), RANK_GROUP);
    }
    int r = blockIdx.z * RANK_GROUP, R = pick(target, r0, r1, r2, r3), s_at = pick(target, at0, at1, at2, at3);
    if (r >= R) return;
    const bf16 *dy = pick(target, dy0, dy1, dy2, dy3);
    const float *b = pick(target, b0, b1, b2, b3);
    int n = strip * STRIP_COLUMNS, t = blockIdx.y * run, end = min(T, t + run);
    int strips = (end - t + STRIP_ROWS - 1) / STRIP_ROWS;
    StripTransposed::Feed<STRIP_THREADS, ALIGNED> strip_feed({dy, N, N, end}, n, t);
    Low::Feed<STRIP_THREADS, true> low_feed({s, pitch, pitch, end}, s_at + r, t);
    auto copy = [&](int i) {
        u32 to = shared + i % STRIP_STAGES * STRIP_STAGE;
        if (i < strips) {
            strip_feed.copy(to);
            low_feed.copy(to + Strip::BYTES);
        }
        copy_commit();
    };
    u32 up = shared + STRIP_STAGES * STRIP_STAGE;
    float acc[4][2][4] = {}; // of dB
    int column = 64 * (warp() - 4);
    copy(0);
    load_up(up, b, n, r, N, R);
    ds += i64(strip) * T * padded + r;
    for (int i = 0; i < strips; i++) {
        copy_wait<0>();
        __syncthreads();
        copy(i + 1);
        u32 strip = shared + i % STRIP_STAGES * STRIP_STAGE;
        if (warp() < 4) {
            float acc[2][4] = {};
            make_ds(acc, strip, up, 16 * warp());
            store_rows(ds, acc, t + i * STRIP_ROWS + 16 * warp(), end, padded);
        } else {
            add_db(acc, strip, strip + Strip::BYTES, column);
        }
    }
    if (warp() < 4) return;
    db += i64(blockIdx.y) * N * padded + r;
#pragma unroll
    for (int i = 0; i < 4; i++) store_rows(db, acc[i], n + column + 16 * i, N, padded);
}

// ---- dA

constexpr int DA_GROUPS = GROUPS == 3 ? 4 : GROUPS; // lines of 48 columns do not divide into the threads of a block
typedef Product<TN, DA_SHAPE + DA_GROUPS / 2, bf16, ALIGNED> Channels;

// Drops channels of x, which is the right operand: a warp's 32 columns are one word of each row's bits, and pairs along
// K are two rows.
struct DropRight {
    const u32 *mask; // (T, words)
    int t, word, T, words;

    __device__ u32 bits(int row) const { return row < T && word < words ? mask[i64(row) * words + word] : 0; }

    template <int MT, int COLUMNS>
    __device__ void operator()(u32 (&)[MT][4], u32 (&b)[COLUMNS][2], int tile, int step) const {
        static_assert(COLUMNS == 4, "a warp's columns are one word");
        int row = t + Channels::BK * tile + 16 * step + lane() % 4 * 2;
        int shift = 7 - lane() / 8;                    // channel 8 j + lane / 4 has bit lane / 8 + 4 (j % 2)
        u32 select = 0xcc88 + lane() / 4 % 2 * 0x1111; // of byte 2 (j / 2) + lane / 4 % 2, of both rows
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 first = bits(row + 8 * half), second = bits(row + 8 * half + 1);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                int left = shift - 4 * (j % 2);
                b[j][half] &= spread_signs(first << left, second << left, select + j / 2 * 0x2222);
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(Channels::THREADS) lora_da(float *parts,    // (runs of rows, pitch, C)
                                                                        const bf16 *ds,  // (T, pitch)
                                                                        const bf16 *x,   // (T, C)
                                                                        const u32 *mask, // (T, ⌈C/32⌉), or null
                                                                        int T, int C, int run, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    Channels block(memory, blockIdx.y * Channels::BM, blockIdx.x * Channels::BN);
    int t = blockIdx.z * run, end = min(T, t + run);
    Channels::Feeds feeds(block, {ds, pitch, pitch, end}, {x, C, C, end}, t);
    Channels::Accumulators acc = {};
    block.fill(feeds);
    if (mask) {
        block.run(acc, feeds, DropRight{mask, t, (block.n + Channels::warp_n()) / 32, end, (C + 31) / 32});
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * pitch * C;
    block.each(acc, [&](int row, int column, float x0, float x1) {
        if (row >= pitch) return;
        float *to = parts + i64(row) * C + column;
        if (C % 2 == 0 && column < C) {
            float pair[2] = {x0, x1};
            store(to, pair);
        } else {
            if (column < C) to[0] = x0;
            if (column + 1 < C) to[1] = x1;
        }
    });
}

// ---- folds

// y[0..count] = scale · Σ parts, `slices` of them `stride` apart, in their order; count ≤ 4. The parts are packs of four.
template <typename Out>
__device__ inline void fold(Out *y, const float *parts, i64 stride, int slices, float scale, int count, bool aligned) {
    float x[4] = {};
    for (int slice = 0; slice < slices; slice++, parts += stride) {
        float part[4] = {};
        if (aligned) {
            load(part, parts);
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (e < count) part[e] = parts[e];
        }
#pragma unroll
        for (int e = 0; e < 4; e++) x[e] += part[e];
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (e < count) y[e] = put<Out>(scale * x[e]);
}

// dS of all linears, then dB of each.
extern "C" __global__ void lora_fold_ds_db(bf16 *ds, // (T, pitch)
                                           float *db0, float *db1, float *db2, float *db3, // (N, R)
                                           const float *of_ds, const float *of_db,         // the parts of lora_ds_db
                                           int n0, int n1, int n2, int n3, int r0, int r1, int r2, int r3, float s0,
                                           float s1, float s2, float s3, int T, int run, int pitch) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x, of_rows = i64(T) * (pitch / 4);
    bool is_ds = i < of_rows;
    int column = is_ds ? i % (pitch / 4) * 4 : 0, row = is_ds ? i / (pitch / 4) : 0, first = column;
    i -= of_rows;
    for (int target = 0; target < TARGETS; target++) {
        int N = pick(target, n0, n1, n2, n3), R = pick(target, r0, r1, r2, r3), padded = round_up(R, RANK_GROUP);
        i64 packs = i64(N) * ((R + 3) / 4);
        if (is_ds && column < padded) {
            fold(ds + i64(row) * pitch + first, of_ds + i64(row) * padded + column, i64(T) * padded,
                 round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS, pick(target, s0, s1, s2, s3), 4, true);
            return;
        }
        if (!is_ds && i < packs) {
            int n = i / ((R + 3) / 4), r = i % ((R + 3) / 4) * 4;
            fold(pick(target, db0, db1, db2, db3) + i64(n) * R + r, of_db + i64(n) * padded + r, i64(N) * padded,
                 round_up(T, run) / run, 1.0f, min(R - r, 4), true);
            return;
        }
        column -= padded;
        i -= packs;
        of_ds += ds_parts(T, N, padded);
        of_db += db_parts(T, N, padded, run);
    }
}

// dA of each linear.
extern "C" __global__ void lora_fold_da(float *da0, float *da1, float *da2, float *da3, // (R, C)
                                        const float *parts,                             // (runs of rows, pitch, C)
                                        int r0, int r1, int r2, int r3, float scale, int runs, int pitch, int C) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    int packs = (C + 3) / 4;
    for (int target = 0; target < TARGETS; target++) {
        int R = pick(target, r0, r1, r2, r3);
        if (i < i64(R) * packs) {
            int r = i / packs, c = i % packs * 4;
            fold(pick(target, da0, da1, da2, da3) + i64(r) * C + c, parts + i64(r) * C + c, i64(pitch) * C, runs, scale,
                 min(C - c, 4), C % 4 == 0);
            return;
        }
        i -= i64(R) * packs;
        parts += i64(round_up(R, RANK_GROUP)) * C;
    }
}
