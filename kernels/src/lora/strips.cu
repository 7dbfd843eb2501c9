// Low-rank products of adapters over dy, for bf16 activations: dS = s dy B and dB = dyᵀ S, from one read of dy.
//
// math    both are split into partial f32 sums over a fixed length (split-K), which fold.cu adds in order
// layout  that of S in low_rank.cuh, dS likewise; the parts of each linear lie behind each other (targets.cuh)
// launch  per block 512 columns of one dy, a run of rows, one group of 16 columns of S
// options ALIGNED 1 when rows of dy and b are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "mainloop.cuh"
#include "targets.cuh"

typedef Tile<bf16, true, STRIP_ROWS, STRIP_COLUMNS> Strip;            // dy: rows of it are the left operand of dS,
typedef Tile<bf16, false, STRIP_COLUMNS, STRIP_ROWS> StripTransposed; // columns that of dB
typedef Tile<bf16, false, RANK_GROUP, STRIP_ROWS> Low;                // S
typedef Tile<bf16, false, RANK_GROUP, STRIP_COLUMNS> Up;              // B
constexpr int STRIP_STAGE = Strip::BYTES + Low::BYTES;
constexpr int STRIP_COPIERS = 256; // threads that copy dy: a power of two, so that a thread's lines are swizzled alike

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

// 16 rows of dS by a warp: dy (16, 512) · B (512, 16).
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

extern "C" __global__ void __launch_bounds__(STRIP_THREADS)
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
    StripTransposed::Feed<STRIP_COPIERS, ALIGNED> strip_feed({dy, N, N, end}, n, t);
    Low::Feed<STRIP_THREADS, true> low_feed({s, pitch, pitch, end}, s_at + r, t);
    auto copy = [&](int i) {
        u32 to = shared + i % STRIP_STAGES * STRIP_STAGE;
        if (i < strips) {
            if (threadIdx.x < STRIP_COPIERS) strip_feed.copy(to);
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
