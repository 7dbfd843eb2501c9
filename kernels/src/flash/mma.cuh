// Products of tiles on tensor cores: bf16 operands, f32 sums. Both classes sum an element's terms in the same order, k
// ascending by 16, so a row has the same bits from either.
#pragma once
#include "tiles.cuh"

constexpr int TILES[][5] = MMA_TILES; // rows, columns, stride of exchanged scores, warps, stages
constexpr int ROW_BYTES = DP * 2;

// Address that a lane gives to ldmatrix, for 16 rows of a tile from `row` on: as operand a, or as bᵀ.
__device__ inline u32 rows_of_a(const E *tile, int row, int lane) {
    return shared_address(chunk(tile, row + lane % 16, lane / 16));
}
__device__ inline u32 rows_of_b(const E *tile, int row, int lane) {
    return shared_address(chunk(tile, row + lane % 8 + lane / 16 * 8, lane / 8 % 2));
}

// Accumulators of 16 rows and 16 columns as the a fragment of a product that sums over the columns: rows 0 to 7, or 8 to
// 15.
__device__ inline void put_row(u32 (&a)[4], const float (&left)[4], const float (&right)[4], int half) {
    a[half] = pair(left[2 * half], left[2 * half + 1]);
    a[half + 2] = pair(right[2 * half], right[2 * half + 1]);
}
__device__ inline void factor(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    put_row(a, left, right, 0);
    put_row(a, left, right, 1);
}

// c += a · b, STEPS steps of 16 along k. load_a(a, k) loads the fragments of a of step k, load_b(b, k, n) the one of b for
// columns 16 n and on; both are loaded while the fragments before them are multiplied.
template <int STEPS, int M, int C, typename LoadA, typename LoadB>
__device__ inline void accumulate(float (&c)[M][C][4], LoadA load_a, LoadB load_b) {
    constexpr int PART = C >= 4 ? 2 : 1, PARTS = C / 2 / PART; // fragments of b loaded at once
    u32 a[2][M][4], b[2][PART][4];
    auto load = [&](int at) {
        int k = at / PARTS;
        if (at % PARTS == 0) load_a(a[k % 2], k);
#pragma unroll
        for (int j = 0; j < PART; j++) load_b(b[at % 2][j], k, at % PARTS * PART + j);
    };
    load(0);
#pragma unroll
    for (int at = 0; at < STEPS * PARTS; at++) {
        if (at + 1 < STEPS * PARTS) load(at + 1);
#pragma unroll
        for (int j = 0; j < PART; j++)
#pragma unroll
            for (int i = 0; i < M; i++) {
                int n = 2 * (at % PARTS * PART + j);
                mma(c[i][n], a[at / PARTS % 2][i], b[at % 2][j][0], b[at % 2][j][1]);
                mma(c[i][n + 1], a[at / PARTS % 2][i], b[at % 2][j][2], b[at % 2][j][3]);
            }
    }
}

// Each warp has 16·MT rows to itself, with all COLS columns of a tile: no warp waits for another.
template <int MT, int KIND> struct Rows : Thread {
    static constexpr int COLS = TILES[KIND][1], WARPS = TILES[KIND][3], STAGES = TILES[KIND][4];
    static constexpr int SPAN = 16 * MT, ROWS = WARPS * SPAN, SHARING = 4, EXCHANGE = 0;
    static constexpr int R = 2 * MT, C = COLS / 4; // rows of a thread, and its columns of a tile
    static constexpr int RUNS = DP / 8, RUN = 2;   // its channels
    // Scores and sums take so many registers that the fragments of a product must not all be loaded ahead: no load moves
    // across a barrier of the warp in its middle.
    static constexpr bool LARGE = MT * COLS * DP == 2 * 64 * 128;

    // (ROWS, COLS): scores, probabilities and their gradients.
    struct Square {
        float x[MT][COLS / 8][4];
        __device__ float &at(int r, int c) { return x[r / 2][c / 2][r % 2 * 2 + c % 2]; }
    };
    // p, rounded to bf16: the a operand of each step of a product over the columns.
    struct Factor {
        u32 x[MT][COLS / 16][4];
        // Takes row r of the thread.
        __device__ void put(const Square &p, int r) {
#pragma unroll
            for (int k = 0; k < COLS / 16; k++) put_row(x[r / 2][k], p.x[r / 2][2 * k], p.x[r / 2][2 * k + 1], r % 2);
        }
    };
    // (ROWS, DP): sums.
    struct Wide {
        float x[MT][RUNS][4];
        __device__ float &at(int r, int n, int i) { return x[r / 2][n][r % 2 * 2 + i]; }
    };

    __device__ int first() const { return warp() * SPAN; }
    __device__ int row(int r) const { return first() + r * 8 + lane() / 4; }
    __device__ int column(int c) const { return c / 2 * 8 + lane() % 4 * 2 + c % 2; }
    __device__ int channel(int n) const { return n * 8 + lane() % 4 * 2; }
    __device__ bool speaks() const { return lane() % 4 == 0; } // one lane for each row

    // s = a (ROWS, D) · bᵀ (COLS, D)
    __device__ void dots(Square &s, const E *a, const E *b, float *) const {
        u32 rows = rows_of_a(a, first(), lane()), columns = rows_of_b(b, 0, lane());
#pragma unroll
        for (int k = 0; k < DP / 16; k++) {
            if (LARGE && k == DP / 32) __syncwarp();
            u32 x[MT][4];
#pragma unroll
            for (int i = 0; i < MT; i++) load_matrices(x[i], (rows ^ k * 32) + i * 16 * ROW_BYTES);
#pragma unroll
            for (int n = 0; n < COLS / 16; n++) {
                u32 y[4];
                load_matrices(y, (columns ^ k * 32) + n * 16 * ROW_BYTES);
#pragma unroll
                for (int i = 0; i < MT; i++) {
                    if (k == 0) {
                        mma_from_zero(s.x[i][2 * n], x[i], y[0], y[1]);
                        mma_from_zero(s.x[i][2 * n + 1], x[i], y[2], y[3]);
                    } else {
                        mma(s.x[i][2 * n], x[i], y[0], y[1]);
                        mma(s.x[i][2 * n + 1], x[i], y[2], y[3]);
                    }
                }
            }
        }
    }

    // w += p (ROWS, COLS) · b (COLS, D)
    __device__ void gather(Wide &w, const Factor &p, const E *b, float *) const {
        u32 columns = rows_of_a(b, 0, lane());
#pragma unroll
        for (int k = 0; k < COLS / 16; k++) {
#pragma unroll
            for (int n = 0; n < DP / 16; n++) {
                u32 y[4];
                // The swizzle moves a chunk among eight: every fourth step is added, and takes no address of its own.
                load_matrices_transposed(y, (columns ^ n % 4 * 32) + n / 4 * 128 + k * 16 * ROW_BYTES);
#pragma unroll
                for (int i = 0; i < MT; i++) {
                    mma(w.x[i][2 * n], p.x[i][k], y[0], y[1]);
                    mma(w.x[i][2 * n + 1], p.x[i][k], y[2], y[3]);
                }
            }
        }
    }

    // Row at(slot) of `to` (…, stride) = that of w, through the warp's own rows of a tile that is no longer read.
    template <typename At> __device__ void write(E *to, int stride, Wide &w, At at, E *tile, int D) const {
        __syncwarp(); // other lanes have read these rows
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int n = 0; n < RUNS; n++)
                *reinterpret_cast<u32 *>(chunk(tile, row(r), n) + lane() % 4 * 2) = pair(w.at(r, n, 0), w.at(r, n, 1));
        __syncwarp();
        int c = lane() % CHUNKS;
#pragma unroll 4
        for (int i = lane() / CHUNKS; i < SPAN; i += 32 / CHUNKS) {
            int slot = first() + i, index = at(slot);
            if (index >= 0 && c * CHUNK < D)
                *reinterpret_cast<uint4 *>(to + i64(index) * stride + c * CHUNK) =
                    *reinterpret_cast<const uint4 *>(chunk(tile, slot, c));
        }
    }
};

// All warps have the same 16 rows. They divide the columns of the scores and exchange them; each then holds all of p,
// and they divide the channels of the sums.
struct Shared : Thread {
    static constexpr int WARPS = TILES[DECODE][3], STAGES = TILES[DECODE][4];
    static constexpr int SPAN = 16, ROWS = TILES[DECODE][0], SHARING = 4, STRIDE = TILES[DECODE][2],
                         EXCHANGE = 16 * STRIDE;
    static constexpr int R = 2, C = TILE / 4;
    static constexpr int RUNS = DP / 32, RUN = 2;

    struct Square {
        float x[TILE / 8][4];
        __device__ float &at(int r, int c) { return x[c / 2][r * 2 + c % 2]; }
    };
    struct Factor {
        u32 x[TILE / 16][4];
        __device__ void put(const Square &p, int r) {
#pragma unroll
            for (int k = 0; k < TILE / 16; k++) put_row(x[k], p.x[2 * k], p.x[2 * k + 1], r);
        }
    };
    struct Wide {
        float x[RUNS][4];
        __device__ float &at(int r, int n, int i) { return x[n][r * 2 + i]; }
    };

    __device__ int first() const { return 0; }
    __device__ int row(int r) const { return r * 8 + lane() / 4; }
    __device__ int column(int c) const { return c / 2 * 8 + lane() % 4 * 2 + c % 2; }
    __device__ int channel(int n) const { return (warp() * RUNS + n) * 8 + lane() % 4 * 2; }
    __device__ bool speaks() const { return warp() == 0 && lane() % 4 == 0; }

    __device__ void dots(Square &s, const E *a, const E *b, float *exchange) const {
        u32 rows = rows_of_a(a, 0, lane()), columns = rows_of_b(b, warp() * 16, lane());
        float part[2][4] = {};
#pragma unroll
        for (int k = 0; k < DP / 16; k++) {
            u32 x[4], y[4];
            load_matrices(x, rows ^ k * 32);
            load_matrices(y, columns ^ k * 32);
            mma(part[0], x, y[0], y[1]);
            mma(part[1], x, y[2], y[3]);
        }
        float *mine = exchange + lane() / 4 * STRIDE + lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                store(mine + r * 8 * STRIDE + (warp() * 2 + n) * 8, {part[n][2 * r], part[n][2 * r + 1]});
        __syncthreads();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float two[2];
                load(two, mine + r * 8 * STRIDE + n * 8);
                s.x[n][2 * r] = two[0];
                s.x[n][2 * r + 1] = two[1];
            }
    }

    __device__ void gather(Wide &w, const Factor &p, const E *b, float *) const {
#pragma unroll
        for (int k = 0; k < TILE / 32; k++) {
#pragma unroll
            for (int n = 0; n < RUNS; n++) {
                u32 y[4];
                load_matrices_transposed(y, shared_address(chunk(b, k * 32 + lane(), warp() * RUNS + n)));
                mma(w.x[n], p.x[2 * k], y[0], y[1]);
                mma(w.x[n], p.x[2 * k + 1], y[2], y[3]);
            }
        }
    }

    template <typename At> __device__ void write(E *to, int stride, Wide &w, At at, E *, int D) const {
#pragma unroll
        for (int r = 0; r < R; r++) {
            int index = at(row(r));
#pragma unroll
            for (int n = 0; n < RUNS; n++)
                if (index >= 0 && channel(n) < D)
                    store(to + i64(index) * stride + channel(n), {w.at(r, n, 0), w.at(r, n, 1)});
        }
    }
};

template <int KIND> using Tiled = Rows<TILES[KIND][0] / (16 * TILES[KIND][3]), KIND>;
typedef Shared Decode;
typedef Tiled<DIAGONAL> Diagonal; // of flash_delta
