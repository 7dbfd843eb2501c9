// Low-rank products of adapters, for bf16 activations: S = s x̃ Aᵀ, dS = s dy B, dB = dyᵀ S, dA = dSᵀ x̃.
//
// math    x̃ = mask/(1-p) ⊙ x. Each product is split into partial f32 sums over a fixed length (split-K), which gemm's
//         `sum` adds in order. Factors of 1/(1-p) and s are applied to sums: to S here, to dS and dA by `sum`
// layout  S and dS hold the columns of all linears that share x side by side, each R rounded up to 16 and padded with
//         zeros; so a group of 16 columns belongs to one linear and one adapter
// launch  per block, lora_s: 128 rows, one group, SLICE channels. lora_ds_db: 256 columns of dy, a run of rows, one
//         group; it reads dy once for both. lora_da: one group, 128 channels, a run of rows
// options ALIGNED 1 when rows of x, a and dy are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "mainloop.cuh"
#include "targets.cuh"

// Zeroes the halves of x whose bit, 0 or 1, is not set.
__device__ inline u32 kept(u32 x, u32 bits) { return x & ((bits & 1) * 0xffff + (bits & 2) * 0x7fff8000); }

// ---- S

typedef Product<NT, 5, float, ALIGNED> Rows;

// Drops channels of x, which is the left operand: pairs along K lie in one word of a row's bits.
struct DropLeft {
    const u32 *mask; // (T, words)
    int row, T, words;

    __device__ u32 word(int row, int k) const { return row < T ? mask[i64(row) * words + k / 32] : 0; }

    template <int MT, int COLUMNS> __device__ void operator()(u32 (&a)[MT][4], u32 (&)[COLUMNS][2], int k) const {
        if (k / 32 >= words) return;
        int shift = k % 32 + lane() % 4 * 2;
#pragma unroll
        for (int i = 0; i < MT; i++) {
            u32 low = word(row + 16 * i, k) >> shift, high = word(row + 16 * i + 8, k) >> shift;
            a[i][0] = kept(a[i][0], low);
            a[i][1] = kept(a[i][1], high);
            a[i][2] = kept(a[i][2], low >> 8);
            a[i][3] = kept(a[i][3], high >> 8);
        }
    }
};

extern "C" __global__ void __launch_bounds__(Rows::THREADS)
    lora_s(float *parts,      // (slices, T, pitch)
           const bf16 *x,     // (T, C)
           const u32 *mask,   // (T, ⌈C/32⌉), or null
           const int *choice, // (T): each row's adapter; or null, and there is one
           const float *a0, const float *a1, const float *a2, const float *a3,     // (adapters, R, C)
           int r0, int r1, int r2, int r3, float s0, float s1, float s2, float s3, // scales of S
           int adapters, int T, int C, int slice, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    int group = blockIdx.y, target = 0, R = r0;
    while (group >= adapters * ((R + RANK_GROUP - 1) / RANK_GROUP)) {
        group -= adapters * ((R + RANK_GROUP - 1) / RANK_GROUP);
        target++;
        R = pick(target, r0, r1, r2, r3);
    }
    int groups = (R + RANK_GROUP - 1) / RANK_GROUP, adapter = group / groups;
    const float *a = pick(target, a0, a1, a2, a3) + i64(adapter) * R * C;
    float scale = pick(target, s0, s1, s2, s3);

    Rows block(memory, blockIdx.x * Rows::BM, group % groups * RANK_GROUP);
    int k = blockIdx.z * slice, end = min(C, k + slice);
    Rows::Feeds feeds(block, {x, C, T, end}, {a, C, R, end}, k);
    Rows::Accumulators acc = {};
    block.fill(feeds);
    if (mask) {
        block.run(acc, feeds, DropLeft{mask, block.m + Rows::warp_m() + lane() / 4, T, (C + 31) / 32});
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * T * pitch + (blockIdx.y * RANK_GROUP - block.n);
    block.each(acc, [&](int row, int column, float x0, float x1) {
        if (row >= T) return;
        int chosen = choice ? choice[row] : adapter;
        if (chosen >= adapters) __trap();
        float factor = chosen == adapter ? scale : 0.0f;
        float pair[2] = {factor * x0, factor * x1};
        store(parts + i64(row) * pitch + column, pair);
    });
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

extern "C" __global__ void __launch_bounds__(STRIP_THREADS, 2)
    lora_ds_db(float *ds,      // (strips of columns, T, padded)
               float *db,      // (runs of rows, N, padded)
               const bf16 *dy, // (T, N)
               const float *b, // (N, R)
               const bf16 *s,  // (T, pitch), this linear's columns from s_at on
               int T, int N, int R, int run, int pitch, int s_at) {
    extern __shared__ __align__(1024) u8 memory[];
    u32 shared = shared_address(memory);
    int n = blockIdx.x * STRIP_COLUMNS, t = blockIdx.y * run, end = min(T, t + run), r = blockIdx.z * RANK_GROUP;
    int padded = gridDim.z * RANK_GROUP, strips = (end - t + STRIP_ROWS - 1) / STRIP_ROWS;
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
    ds += i64(blockIdx.x) * T * padded + r;
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

typedef Product<TN, 6, bf16, ALIGNED> Channels;

// Drops channels of x, which is the right operand: a warp's 32 columns are one word of each row's bits, and pairs along
// K are two rows.
struct DropRight {
    const u32 *mask; // (T, words)
    int word, T, words;

    __device__ u32 bits(int row) const {
        return row < T && word < words ? mask[i64(row) * words + word] >> (lane() / 4) : 0;
    }

    template <int MT, int COLUMNS> __device__ void operator()(u32 (&)[MT][4], u32 (&b)[COLUMNS][2], int k) const {
        k += lane() % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 first = bits(k + 8 * half), second = bits(k + 8 * half + 1);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                b[j][half] = kept(b[j][half], (first >> 8 * j & 1) | (second >> 8 * j & 1) << 1);
        }
    }
};

extern "C" __global__ void __launch_bounds__(Channels::THREADS) lora_da(float *parts,    // (runs of rows, pitch, C)
                                                                        const bf16 *ds,  // (T, pitch)
                                                                        const bf16 *x,   // (T, C)
                                                                        const u32 *mask, // (T, ⌈C/32⌉), or null
                                                                        int T, int C, int run, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    Channels block(memory, blockIdx.y * RANK_GROUP, blockIdx.x * Channels::BN);
    int t = blockIdx.z * run, end = min(T, t + run);
    Channels::Feeds feeds(block, {ds, pitch, pitch, end}, {x, C, C, end}, t);
    Channels::Accumulators acc = {};
    block.fill(feeds);
    if (mask) {
        block.run(acc, feeds, DropRight{mask, (block.n + Channels::warp_n()) / 32, end, (C + 31) / 32});
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * pitch * C;
    block.each(acc, [&](int row, int column, float x0, float x1) {
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
